"""Parsing of XLA's programs and errors."""

from benchmarks import program_text

REDUCING = """
  %all-reduce.5 = f32[16,8]{1,0:T(8,128)} all-reduce(%x), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %all-reduce-start.1 = (bf16[4]{0}, /*index=1*/s32[]) all-reduce-start(%a, %b), channel_id=2
  %other = f32[3]{0} fusion(%all-reduce.5), kind=kLoop
"""


def test_all_reduces_and_their_bytes():
  assert program_text.all_reduces(REDUCING) == (2, 16 * 8 * 4 + 4 * 2 + 4)


def test_what_does_not_fit_is_a_result():
  message = (
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 18.31G of '
  )
  assert program_text.out_of_memory(message + '15.75G hbm. Exceeded hbm capacity by 2.56G.') == '18.31G of 15.75G hbm'
  fused = 'RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom:\nRan out of memory in memory space vmem. '
  fused += 'Scoped allocation with size 17.19M and limit 16.00M exceeded scoped vmem limit by 1.19M.'
  assert program_text.out_of_memory(fused) == '17.19M of 16.00M vmem'
  assert program_text.out_of_memory('RESOURCE_EXHAUSTED: Out of memory while trying to allocate') == 'out of memory'
  assert program_text.out_of_memory('INTERNAL: something else') is None


PROGRAM = """HloModule jit_apply

%fused (p.1: f32[2,8,16]) -> f32[2,8,16] {
  ROOT %add.1 = f32[2,8,16]{2,1,0:T(8,128)} add(%p.1, %p.1), metadata={op_name="jit(apply)/EndToEnd/depth/stem/add"}
}

ENTRY %main (x: f32[2,8,16]) -> f32[2,8,16] {
  %x = f32[2,8,16]{2,1,0:T(8,128)} parameter(0)
  %a = f32[2,8,16]{2,1,0:T(8,128)} fusion(%x), calls=%fused, metadata={op_name="f/EndToEnd/depth/stem/x"}
  %b = (bf16[3,4,128]{2,1,0:T(8,128)(2,1)}, u8[4]{0:T(128)S(1)}) map(%a), metadata={op_name="EndToEnd)/depth/f./stem/"}
  %c = f32[2,8,16]{0,1,2:T(8,128)} bitcast(%a)
  ROOT %d = f32[2,8,16]{0,1,2:T(8,128)} copy(%c)
}
"""


def test_padding_of_what_is_written():
  """Neither inside fusions, nor of parameters, other names or vector memory. By hand: tiles of 8 x 128."""
  stem = 2 * 8 * 16 * 4 + 3 * 4 * 128 * 2, 2 * 8 * 128 * 4 + 3 * 8 * 128 * 2
  assert program_text.stored(PROGRAM) == {'depth/stem': stem, '': (2 * 8 * 16 * 4, 16 * 8 * 128 * 4)}
