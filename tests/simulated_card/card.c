/* The CUDA runtime of a card that holds addresses and runs nothing.

   What the card is like comes from the environment, see `number` and README.md. Device memory is reserved address space:
   it reads as zeros, and what is copied to it is kept, so that values which come back to the host are sane. */
#define _GNU_SOURCE
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MIB (1024ull * 1024)
#define PAGE (2 * MIB) /* what a driver gives out at least */

typedef unsigned long long u64;

static u64 number(const char *name, u64 otherwise) {
  const char *text = getenv(name);
  return text ? strtoull(text, 0, 10) : otherwise;
}

/* What the allocator can have: the card's memory less the context. */
static u64 room(void) {
  return number("SIMULATED_TOTAL", 85027979264ull) - number("SIMULATED_CONTEXT", 0);
}

/* --- memory -------------------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { char *address; u64 size; } pieces[1 << 20];
static int piece_count;
static u64 in_use;
static char *arena, *arena_next, *arena_end;

static int on_device(const void *pointer) {
  return arena && (const char *)pointer >= arena && (const char *)pointer < arena_end;
}

cudaError_t cudaMalloc(void **out, size_t size) {
  *out = 0;
  if (!size) return cudaSuccess;
  u64 take = (size + PAGE - 1) / PAGE * PAGE;
  pthread_mutex_lock(&lock);
  if (in_use + take > room()) {
    pthread_mutex_unlock(&lock);
    return cudaErrorMemoryAllocation;
  }
  if (!arena) {
    u64 space = 1ull << 44;
    arena = mmap(0, space, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) { perror("address space for the simulated card"); abort(); }
    arena_next = (char *)(((u64)arena + PAGE - 1) / PAGE * PAGE);
    arena_end = arena + space;
  }
  if (arena_next + take > arena_end || piece_count == 1 << 20) abort();
  pieces[piece_count].address = arena_next;
  pieces[piece_count++].size = take;
  *out = arena_next;
  arena_next += take;
  in_use += take;
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

cudaError_t cudaFree(void *address) {
  pthread_mutex_lock(&lock);
  for (int i = piece_count - 1; address && i >= 0; i--)
    if (pieces[i].address == address) {
      madvise(address, pieces[i].size, MADV_DONTNEED);
      in_use -= pieces[i].size;
      pieces[i] = pieces[--piece_count];
      break;
    }
  pthread_mutex_unlock(&lock);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
  *total = number("SIMULATED_TOTAL", 85027979264ull);
  *free_bytes = room() - in_use;
  return cudaSuccess;
}

static cudaError_t copy(void *to, const void *from, size_t size) {
  if (size && !(on_device(to) && on_device(from))) memcpy(to, from, size);
  return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, enum cudaMemcpyKind kind) {
  return copy(to, from, size);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, enum cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, from, size);
}
cudaError_t cudaHostAlloc(void **out, size_t size, unsigned flags) {
  *out = calloc(1, size);
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void *pointer) {
  free(pointer);
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *pointer) {
  memset(attributes, 0, sizeof *attributes);
  attributes->type = on_device(pointer) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  attributes->devicePointer = (void *)pointer;
  return cudaSuccess;
}
cudaError_t cudaGetSymbolAddress(void **out, const void *symbol) {
  *out = (void *)symbol;
  return cudaSuccess;
}

/* --- the card ------------------------------------------------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }

#if CUDART_VERSION >= 13000
#undef cudaGetDeviceProperties
#endif
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *card, int device) {
  const char *name = getenv("SIMULATED_NAME");
  u64 shared = number("SIMULATED_SHARED", 232448);
  memset(card, 0, sizeof *card);
  snprintf(card->name, sizeof card->name, "%s", name ? name : "simulated card");
  card->totalGlobalMem = number("SIMULATED_TOTAL", 85027979264ull);
  card->major = number("SIMULATED_MAJOR", 9);
  card->minor = number("SIMULATED_MINOR", 0);
  card->multiProcessorCount = number("SIMULATED_MULTIPROCESSORS", 132);
  card->maxThreadsPerMultiProcessor = number("SIMULATED_THREADS", 2048);
  card->maxThreadsPerBlock = 1024;
  card->warpSize = 32;
  card->regsPerBlock = card->regsPerMultiprocessor = 65536;
  card->sharedMemPerBlock = 49152;
  card->sharedMemPerBlockOptin = shared;
  card->sharedMemPerMultiprocessor = shared + 1024;
  card->maxGridSize[0] = 2147483647;
  card->maxGridSize[1] = card->maxGridSize[2] = 65535;
  card->maxThreadsDim[0] = card->maxThreadsDim[1] = 1024;
  card->maxThreadsDim[2] = 64;
  card->l2CacheSize = 50 * MIB;
  card->textureAlignment = 512;
  card->unifiedAddressing = card->managedMemory = card->concurrentKernels = card->cooperativeLaunch = 1;
  card->maxBlocksPerMultiProcessor = 32;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
  struct cudaDeviceProp card;
  cudaGetDeviceProperties(&card, device);
  switch (attribute) {
  case cudaDevAttrComputeCapabilityMajor: *value = card.major; break;
  case cudaDevAttrComputeCapabilityMinor: *value = card.minor; break;
  case cudaDevAttrMultiProcessorCount: *value = card.multiProcessorCount; break;
  case cudaDevAttrMaxSharedMemoryPerBlock: *value = card.sharedMemPerBlock; break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = card.sharedMemPerBlockOptin; break;
  case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = card.sharedMemPerMultiprocessor; break;
  case cudaDevAttrMaxThreadsPerMultiProcessor: *value = card.maxThreadsPerMultiProcessor; break;
  case cudaDevAttrMaxThreadsPerBlock: *value = card.maxThreadsPerBlock; break;
  case cudaDevAttrWarpSize: *value = card.warpSize; break;
  case cudaDevAttrMaxGridDimX: *value = card.maxGridSize[0]; break;
  case cudaDevAttrMaxGridDimY: *value = card.maxGridSize[1]; break;
  case cudaDevAttrMaxGridDimZ: *value = card.maxGridSize[2]; break;
  case cudaDevAttrMaxBlockDimX: *value = card.maxThreadsDim[0]; break;
  case cudaDevAttrMaxBlockDimY: *value = card.maxThreadsDim[1]; break;
  case cudaDevAttrMaxRegistersPerBlock: *value = card.regsPerBlock; break;
  case cudaDevAttrMaxRegistersPerMultiprocessor: *value = card.regsPerMultiprocessor; break;
  case cudaDevAttrMaxBlocksPerMultiprocessor: *value = card.maxBlocksPerMultiProcessor; break;
  case cudaDevAttrL2CacheSize: *value = card.l2CacheSize; break;
  case cudaDevAttrCooperativeLaunch: *value = 1; break;
  default: *value = 0;
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char *text, int size, int device) {
  snprintf(text, size, "0000:00:00.0");
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer) { *can = 0; return cudaSuccess; }
const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}
const char *cudaGetErrorName(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}

/* --- streams, events, kernels --------------------------------------------------------------------------------- */

static cudaError_t handle(void **out) {
  *out = malloc(64);
  return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *out) { return handle((void **)out); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority) {
  return handle((void **)out);
}
cudaError_t cudaEventCreate(cudaEvent_t *out) { return handle((void **)out); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) { return handle((void **)out); }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t start, cudaEvent_t end) { *ms = 0; return cudaSuccess; }
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int *priority) { *priority = 0; return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
#if CUDART_VERSION < 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, u64 *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes, size_t *count) {
#else
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, enum cudaStreamCaptureStatus *status, u64 *id,
                                     cudaGraph_t *graph, const cudaGraphNode_t **nodes,
                                     const cudaGraphEdgeData **edges, size_t *count) {
#endif
  *status = cudaStreamCaptureStatusNone;
  if (id) *id = 0;
  if (count) *count = 0;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function) {
  memset(attributes, 0, sizeof *attributes);
  attributes->binaryVersion = number("SIMULATED_MAJOR", 9) * 10 + number("SIMULATED_MINOR", 0);
  attributes->ptxVersion = attributes->binaryVersion;
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 32;
  attributes->maxDynamicSharedSizeBytes = 49152;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *count, const void *function, int block,
                                                                   size_t shared, unsigned flags) {
  *count = block > 0 && block < 2048 ? 2048 / block : 1;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *count, const void *function, int block,
                                                          size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(count, function, block, shared, 0);
}

/* A launch goes through a stub that pushes and pops its configuration. */
static __thread struct { dim3 grid, block; size_t shared; void *stream; } launches[8];
static __thread int depth;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  launches[depth].grid = grid;
  launches[depth].block = block;
  launches[depth].shared = shared;
  launches[depth++].stream = stream;
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  depth--;
  *grid = launches[depth].grid;
  *block = launches[depth].block;
  *shared = launches[depth].shared;
  *(void **)stream = launches[depth].stream;
  return cudaSuccess;
}
void **__cudaRegisterFatBinary(void *binary) {
  static void *registered;
  return &registered;
}
cudaError_t __cudaGetKernel(void **kernel, const void *function) {
  *kernel = (void *)function;
  return cudaSuccess;
}

/* --- what expandable segments ask of the driver --------------------------------------------------------------- */

static CUresult succeed(void) { return CUDA_SUCCESS; }
static CUresult reserve(CUdeviceptr *out, size_t size, size_t alignment, CUdeviceptr at, u64 flags) {
  static u64 next = 0x700000000000ull;
  *out = next;
  next += (size + PAGE - 1) / PAGE * PAGE;
  return CUDA_SUCCESS;
}
static CUresult create(CUmemGenericAllocationHandle *out, size_t size, const CUmemAllocationProp *what, u64 flags) {
  if (in_use + size > room()) return CUDA_ERROR_OUT_OF_MEMORY;
  in_use += size;
  *out = size;
  return CUDA_SUCCESS;
}
static CUresult release(CUmemGenericAllocationHandle size) {
  in_use -= size;
  return CUDA_SUCCESS;
}
static CUresult say(CUresult error, const char **text) { *text = "an error"; return CUDA_SUCCESS; }
static CUresult granularity(size_t *out, const CUmemAllocationProp *what, CUmemAllocationGranularity_flags flags) {
  *out = PAGE;
  return CUDA_SUCCESS;
}
static CUresult attribute(int *value, CUdevice_attribute which, CUdevice device) { *value = 0; return CUDA_SUCCESS; }
static CUresult context(CUcontext *out) { *out = (CUcontext)1; return CUDA_SUCCESS; }

static void *driver_function(const char *name) {
  static const struct { const char *name; void *function; } known[] = {
      {"cuMemAddressReserve", reserve}, {"cuMemCreate", create}, {"cuMemRelease", release},
      {"cuGetErrorString", say}, {"cuMemGetAllocationGranularity", granularity},
      {"cuDeviceGetAttribute", attribute}, {"cuCtxGetCurrent", context},
  };
  for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(known[i].name, name)) return known[i].function;
  return succeed;
}
#undef cudaGetDriverEntryPoint
#undef cudaGetDriverEntryPointByVersion
cudaError_t cudaGetDriverEntryPoint(const char *name, void **out, u64 flags,
                                    enum cudaDriverEntryPointQueryResult *result) {
  *out = driver_function(name);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned version, u64 flags,
                                             enum cudaDriverEntryPointQueryResult *result) {
  return cudaGetDriverEntryPoint(name, out, flags, result);
}
