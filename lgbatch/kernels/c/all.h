/* All kernels of one instruction set: each file in isa/ defines its vectors and includes this file.

   Vectors hold WIDTH floats (vf), int32 (vi) or truth values (vm). The functions on them do what their names say;
   besides,

       vf_fma(a, b, c), vf_fms(a, b, c)   a b + c, a b - c
       vf_scale(x, n)                     x 2^n, 0 if it underflows, beyond 1e38 if it overflows
       vf_to_int(x)                       rounded to the nearest integer, like vf_round(x)
       vf_transpose(rows)                 transposes a square of WIDTH vectors
       vm_first(n)                        true for the first n lanes; n may be negative or beyond WIDTH
       vf_store_where(m, to, x)           stores the lanes of x where m is true
       store_bytes(to, x)                 stores the low byte of each lane
       store_bf16(to, x, y)               rounds to nearest even, x before y
       store_pairs(to, x, y)              the same, but each value of y follows that of x
       load_half(x), store_half(to, x)    between float and IEEE half precision, to nearest even; not beyond 65504
       store_int16(to, x)                 rounds to the nearest integer
       vi_store_half(to, x)               the first half of x
       vi_add_int16, vi_sub_int16         of the two int16 in each lane

   and those of tile.h. Products of 16 bits have factors in int16 and sums in int32, or, where BF16_FACTORS is defined,
   in bfloat16 and float, whose bits the sums hold:

       dot_factors(sum, x, p)             sum plus the two products in each lane of x and p
       sum_to_float(sum)
       store_factors(to, x)               the int16 of x, as factors

   ZERO_POINT is added to quantized activations, for instructions that multiply uint8 by int8; it is 0 for instructions
   that multiply int8 by int8, and dot_uint8 then multiplies uint8 by uint8. NATIVE_MATRIX says that instructions
   multiply matrices; WIDTH is 4 then, and a half is two lanes. */

#include <math.h>
#include <string.h>

#include "aliked/types.h"
#include "disk/types.h"
#include "lightglue/types.h"

#define CONCAT(a, b, c) a##b##_##c
#define EXPORTED_AS(name, isa) CONCAT(lgbatch_, name, isa)
#define EXPORTED(name) EXPORTED_AS(name, ISA) /* for instance lgbatch_layer_avx2 */

static const int32_t zeros[PANEL];

#include "functions.h"
#ifndef PORTABLE
#include "tile.h"
#endif
#include "aliked/basics.h"
#include "aliked/product.h"
#include "aliked/winograd.h"
#include "aliked/rows.h"
#include "aliked/deform.h"
#include "aliked/planes.h"
#include "aliked/head.h"
#include "aliked/maps.h"
#include "aliked/detect.h"
#include "aliked/describe.h"
#include "disk/statistics.h"
#include "disk/gate.h"
#include "disk/convolution.h"
#include "disk/heat.h"
#include "disk/select.h"
#include "disk/extract.h"
#include "lightglue/attention.h"
#include "lightglue/dense.h"
#include "lightglue/head.h"
#include "lightglue/layer.h"
#include "lightglue/stem.h"
#include "nearest.h"
