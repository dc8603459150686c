// The twin's conversions, one array at a time.
#include "ptx.cuh"

namespace prefuse {

extern "C" __global__ void pack_halves(const float *x, unsigned *bf16, unsigned *f16, int pairs) {
  const int step = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < pairs; i += step) {
    bf16[i] = pack_bf16x2(x[2 * i], x[2 * i + 1]);
    f16[i] = pack_f16x2(x[2 * i], x[2 * i + 1]);
  }
}

extern "C" __global__ void unpack_f16(const unsigned short *x, float *out, int n) {
  const int step = gridDim.x * blockDim.x;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) out[i] = f16_to_float(x[i]);
}

// All encodings against `other`: it in the low half and the encoding in the high one, and the other
// way round in the second array.
extern "C" __global__ void max_halves(unsigned other, unsigned *bf16, unsigned *f16) {
  const int step = gridDim.x * blockDim.x;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < 65536; i += step) {
    bf16[i] = max_bf16x2(other << 16 | i, i << 16 | other);
    f16[i] = max_f16x2(other << 16 | i, i << 16 | other);
  }
}

extern "C" __global__ void powers_of_2(const float *x, float *out, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) out[i] = ex2(x[i]);
}

}  // namespace prefuse
