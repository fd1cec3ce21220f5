/* Functions of the driver, cuBLAS, cuDNN and others that have to answer something; all others return 0. */
#include <stdlib.h>

static int handle(void **out) {
  *out = calloc(1, 4096);
  return 0;
}

int cublasCreate_v2(void **out) { return handle(out); }
int cublasGetVersion_v2(void *library, int *version) { *version = 130000; return 0; }
int cublasLtCreate(void **out) { return handle(out); }
unsigned long cublasLtGetVersion(void) { return 130000; }
int cublasLtMatmulDescCreate(void **out, int compute, int scale) { return handle(out); }
int cublasLtMatrixLayoutCreate(void **out, int type, unsigned long rows, unsigned long columns, long leading) {
  return handle(out);
}
int cublasLtMatmulPreferenceCreate(void **out) { return handle(out); }
int cublasLtMatmulAlgoGetHeuristic(void *library, void *product, void *a, void *b, void *c, void *d, void *preference,
                                   int asked, void *results, int *found) {
  *found = 1;
  return 0;
}
int cusparseCreate(void **out) { return handle(out); }

/* cuDNN has to be the release that PyTorch was built with. */
static long cudnn(void) {
  const char *text = getenv("SIMULATED_CUDNN");
  return text ? atol(text) : 92000;
}
int cudnnCreate(void **out) { return handle(out); }
unsigned long cudnnGetVersion(void) { return cudnn(); }
unsigned long cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int error) { return "an error"; }
int cudnnGetProperty(int which, int *value) {
  *value = which == 0 ? cudnn() / 10000 : which == 1 ? cudnn() / 100 % 100 : cudnn() % 100;
  return 0;
}

int ncclGetVersion(int *version) { *version = 22809; return 0; }
int cuptiGetVersion(unsigned *version) { *version = 26; return 0; }

int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "an error"; return 0; }
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  if (flags) *flags = 0;
  *active = 1;
  return 0;
}
