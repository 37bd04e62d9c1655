/* Stand-in of the CUDA runtime, cuDNN and CUDA's driver without a GPU: memory is the host's, and no kernel runs.
   It lets ONNX Runtime's CUDA provider start, which then shows which nodes it takes. Outputs hold arbitrary numbers. */
#include <stdlib.h>
#include <string.h>

enum { MAJOR = 8, MINOR = 6, PROCESSORS = 84, ATTRIBUTE_MAJOR = 75, ATTRIBUTE_MINOR = 76 };
static const size_t MEMORY = (size_t)8 << 30;

#ifdef RUNTIME
static int allocate(void **memory, size_t size) {
    *memory = aligned_alloc(256, (size + 255) / 256 * 256);
    return 0;
}
int cudaMalloc(void **memory, size_t size) { return allocate(memory, size); }
int cudaMallocHost(void **memory, size_t size) { return allocate(memory, size); }
int cudaHostAlloc(void **memory, size_t size, unsigned flags) { return allocate(memory, size); }
int cudaFree(void *memory) { free(memory); return 0; }
int cudaFreeHost(void *memory) { free(memory); return 0; }
int cudaMemGetInfo(size_t *available, size_t *total) { *available = *total = MEMORY; return 0; }
int cudaMemcpy(void *to, const void *from, size_t size, int kind) { memcpy(to, from, size); return 0; }
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) { memcpy(to, from, size); return 0; }
int cudaMemset(void *memory, int value, size_t size) { memset(memory, value, size); return 0; }
int cudaMemsetAsync(void *memory, int value, size_t size, void *stream) { memset(memory, value, size); return 0; }
int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaStreamIsCapturing(void *stream, int *status) { *status = 0; return 0; }
const char *cudaGetErrorString(int error) { return "stand-in"; }
const char *cudaGetErrorName(int error) { return "stand-in"; }
void **__cudaRegisterFatBinary(void *binary) { static void *handle; return &handle; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == ATTRIBUTE_MAJOR ? MAJOR : attribute == ATTRIBUTE_MINOR ? MINOR : 1024;
    return 0;
}
struct properties { /* the beginning of cudaDeviceProp of CUDA 13 */
    char name[256], ids[28];
    size_t memory, shared_memory_per_block;
    int registers_per_block, warp_size;
    size_t pitch;
    int threads_per_block, block[3], grid[3];
    size_t constant_memory;
    int major, minor;
    size_t texture_alignment, texture_pitch;
    int processors;
};
int cudaGetDeviceProperties(struct properties *device, int index) {
    *device = (struct properties){.name = "stand-in", .memory = MEMORY, .shared_memory_per_block = 49152,
        .registers_per_block = 65536, .warp_size = 32, .threads_per_block = 1024, .block = {1024, 1024, 64},
        .grid = {65535, 65535, 65535}, .major = MAJOR, .minor = MINOR, .processors = PROCESSORS};
    return 0;
}
#endif

#ifdef CUDNN
int cudnnGetReductionWorkspaceSize(void *handle, void *reduction, void *from, void *to, size_t *size) { return *size = 0; }
int cudnnGetReductionIndicesSize(void *handle, void *reduction, void *from, void *to, size_t *size) { return *size = 0; }
size_t cudnnGetVersion(void) { return 91000; }
#endif

#ifdef DRIVER
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "stand-in", size); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return 0; }
int cuCtxPushCurrent_v2(void *context) { return 0; }
int cuCtxPopCurrent_v2(void **context) { return 0; }
int cuMemGetInfo_v2(size_t *available, size_t *total) { *available = *total = MEMORY; return 0; }
#endif
