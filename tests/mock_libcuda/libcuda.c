// A CUDA driver whose device memory is the host's and whose kernels are C functions, for the tests of
// src/cuda on machines without a GPU. It checks what the real one would refuse, and logs the calls
// that have an effect. Settings come from the environment; see `setting`.
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
};

struct Context {
  int retained;
};
struct Stream {
  struct Context *context;
  const char *name;
};
struct Function {
  const char *name;
  int loaded;
  int most_shared;
  int static_shared;
};
struct Launch {
  unsigned grid[3], block[3], shared;
  struct Stream *stream;
  struct Attribute {
    unsigned id;
    char pad[4];
    union {
      unsigned cluster[3];
      char bytes[64];
    } value;
  } *attributes;
  unsigned count;
};

static struct Context contexts[2];
enum { FUNCTIONS = 4 };
static struct Function functions[FUNCTIONS] = {{"fill", 0, 0, 0},
                                               {"fixed", 0, 0, 1024},
                                               {"fill_cluster_f16", 0, 0, 0},
                                               {"fill_cluster_f32", 0, 0, 0}};
static int initialised, loaded;
static _Thread_local struct Context *current;
static char text[1 << 16];
static size_t used;

static void note(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  used += vsnprintf(text + used, sizeof text - used, format, arguments);
  used += snprintf(text + used, sizeof text - used, "\n");
  va_end(arguments);
}

static int setting(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}

static int in_context(void) { return current && current->retained; }
static const char *name_of(struct Context *context) {
  return context == &contexts[0] ? "0" : context == &contexts[1] ? "1" : "none";
}

// What the tests look at.
const char *mock_log(void) {
  static char copy[sizeof text];
  memcpy(copy, text, used);
  copy[used] = 0;
  used = 0;
  return copy;
}
void mock_set_current(int device) { current = device < 0 ? NULL : &contexts[device]; }
int mock_current(void) { return current ? (int)(current - contexts) : -1; }
void *mock_stream(int device) {
  static struct Stream streams[2] = {{&contexts[0], "foreign"}, {&contexts[1], "foreign"}};
  return &streams[device];
}
int mock_most_shared(int function) { return functions[function].most_shared; }

int cuInit(unsigned flags) {
  int code = setting("MOCK_INIT", SUCCESS);
  initialised = flags == 0 && code == SUCCESS;
  return code;
}
int cuDriverGetVersion(int *version) {
  *version = setting("MOCK_VERSION", 13000);
  return SUCCESS;
}
int cuGetErrorString(int code, const char **string) {
  (void)code;
  *string = "the mock's words";
  return SUCCESS;
}
int cuDeviceGetCount(int *count) {
  *count = setting("MOCK_DEVICES", 2);
  return initialised ? SUCCESS : NOT_INITIALIZED;
}
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal < 2 ? SUCCESS : 101;
}
int cuDeviceGetName(char *name, int length, int device) {
  snprintf(name, length, "mock %d", device);
  return SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  switch (attribute) {
    case 16:
      *value = 132;
      return SUCCESS;  // multiprocessors
    case 75:
      *value = setting("MOCK_CAPABILITY", 9);
      return SUCCESS;  // compute capability, major
    case 76:
      *value = 0;
      return SUCCESS;  // and minor
    case 97:
      *value = 232448;
      return SUCCESS;  // shared memory that a block may opt in to
    case 115:
      *value = setting("MOCK_POOLS", 1);
      return SUCCESS;
    default:
      return INVALID_VALUE;
  }
}

int cuDevicePrimaryCtxRetain(struct Context **context, int device) {
  *context = &contexts[device];
  contexts[device].retained++;
  note("retain %d", device);
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  contexts[device].retained--;
  note("release %d", device);
  return loaded ? INVALID_CONTEXT : SUCCESS;
}
int cuCtxGetCurrent(struct Context **context) {
  *context = current;
  return SUCCESS;
}
int cuCtxSetCurrent(struct Context *context) {
  current = context;
  note("current %s", name_of(context));
  return SUCCESS;
}

// The test's own image, or a fatbin by the number that it begins with.
static int is_image(const void *image) {
  const unsigned char fatbin[4] = {0x50, 0xed, 0x55, 0xba};
  return !strcmp(image, "image") || !memcmp(image, fatbin, sizeof fatbin);
}
int cuModuleLoadDataEx(void **module, const void *image, unsigned count, const int *options,
                       void **values) {
  int code = setting("MOCK_LOAD", SUCCESS);
  if (!in_context()) return INVALID_CONTEXT;
  if (!is_image(image) || (uintptr_t)image % 16) return INVALID_VALUE;
  if (code && count == 2 && options[0] == 5 && options[1] == 6)
    snprintf(values[0], (uintptr_t)values[1], "the compiler's words");
  if (code) return code;
  *module = functions;
  loaded = 1;
  note("load");
  return SUCCESS;
}
int cuModuleUnload(void *module) {
  if (!in_context() || module != functions) return INVALID_CONTEXT;
  loaded = 0;
  note("unload");
  return SUCCESS;
}
int cuModuleGetFunctionCount(unsigned *count, void *module) {
  *count = FUNCTIONS;
  return module == functions ? SUCCESS : INVALID_HANDLE;
}
int cuModuleEnumerateFunctions(struct Function **found, unsigned count, void *module) {
  for (unsigned i = 0; i < count; i++) found[i] = &functions[i];
  return module == functions && count == FUNCTIONS ? SUCCESS : INVALID_HANDLE;
}
int cuFuncLoad(struct Function *function) {
  function->loaded = 1;
  return setting("MOCK_FUNCTION", SUCCESS);
}
int cuFuncGetName(const char **name, struct Function *function) {
  *name = function->name;
  return SUCCESS;
}
int cuFuncGetAttribute(int *value, int attribute, struct Function *function) {
  switch (attribute) {
    case 0:
      *value = 256;
      return SUCCESS;  // threads of a block
    case 1:
      *value = function->static_shared;
      return SUCCESS;
    case 5:
      *value = setting("MOCK_PTX", 90);
      return SUCCESS;  // the virtual architecture that it was compiled for
    default:
      return INVALID_VALUE;
  }
}
int cuFuncSetAttribute(struct Function *function, int attribute, int value) {
  if (attribute != 8 || value + function->static_shared > 232448) return INVALID_VALUE;
  function->most_shared = value;
  return SUCCESS;
}

int cuStreamCreate(struct Stream **stream, unsigned flags) {
  if (!in_context()) return INVALID_CONTEXT;
  *stream = malloc(sizeof **stream);
  **stream = (struct Stream){current, "own"};
  note("create stream %u", flags);
  return SUCCESS;
}
int cuStreamDestroy_v2(struct Stream *stream) {
  if (!in_context() || strcmp(stream->name, "own")) return INVALID_CONTEXT;
  free(stream);
  note("destroy stream");
  return SUCCESS;
}
int cuStreamGetCtx(struct Stream *stream, struct Context **context) {
  *context = stream ? stream->context : current;
  return SUCCESS;
}
int cuStreamIsCapturing(struct Stream *stream, unsigned *status) {
  (void)stream;
  *status = setting("MOCK_CAPTURING", 0);
  return SUCCESS;
}
static const char *on(struct Stream *stream) { return stream ? stream->name : "default"; }
static int may_use(struct Stream *stream) {
  return in_context() && (!stream || stream->context == current);
}
int cuStreamSynchronize(struct Stream *stream) {
  if (!may_use(stream)) return INVALID_CONTEXT;
  note("synchronize %s", on(stream));
  return SUCCESS;
}

static int allocate(uint64_t *address, size_t bytes) {
  if (bytes == 0) return INVALID_VALUE;
  if (bytes > (size_t)1 << 40) return OUT_OF_MEMORY;
  *address = (uint64_t)aligned_alloc(256, (bytes + 255) / 256 * 256);
  return SUCCESS;
}
int cuMemAllocAsync(uint64_t *address, size_t bytes, struct Stream *stream) {
  if (!may_use(stream)) return INVALID_CONTEXT;
  note("allocate %zu on %s", bytes, on(stream));
  return allocate(address, bytes);
}
int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  if (!in_context()) return INVALID_CONTEXT;
  note("allocate %zu", bytes);
  return allocate(address, bytes);
}
int cuMemFreeAsync(uint64_t address, struct Stream *stream) {
  if (!may_use(stream)) return INVALID_CONTEXT;
  note("free on %s", on(stream));
  free((void *)address);
  return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
  if (!in_context()) return INVALID_CONTEXT;
  note("free");
  free((void *)address);
  return SUCCESS;
}
int cuMemHostAlloc(void **host, size_t bytes, unsigned flags) {
  if (!in_context() || flags != 3) return INVALID_CONTEXT;
  *host = malloc(bytes);
  memset(*host, 0xff, bytes);
  note("allocate %zu locked", bytes);
  return SUCCESS;
}
int cuMemHostGetDevicePointer_v2(uint64_t *address, void *host, unsigned flags) {
  *address = (uint64_t)host;
  return flags ? INVALID_VALUE : setting("MOCK_MAPPED", SUCCESS);
}
int cuMemFreeHost(void *host) {
  if (!in_context()) return INVALID_CONTEXT;
  note("free locked");
  free(host);
  return SUCCESS;
}
static int copy(void *to, const void *from, size_t bytes, struct Stream *stream, const char *what) {
  if (!may_use(stream)) return INVALID_CONTEXT;
  note("%s %zu on %s", what, bytes, on(stream));
  memcpy(to, from, bytes);
  return SUCCESS;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, struct Stream *stream) {
  return copy((void *)to, from, bytes, stream, "upload");
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, struct Stream *stream) {
  return copy(to, (void *)from, bytes, stream, "download");
}
int cuMemsetD8Async(uint64_t address, unsigned char value, size_t bytes, struct Stream *stream) {
  if (!may_use(stream)) return INVALID_CONTEXT;
  note("set %zu to %d on %s", bytes, value, on(stream));
  memset((void *)address, value, bytes);
  return SUCCESS;
}

static unsigned cluster_of(const struct Launch *launch) {
  unsigned cluster = 1;
  for (unsigned i = 0; i < launch->count; i++)
    if (launch->attributes[i].id == 4) cluster = launch->attributes[i].value.cluster[0];
  return cluster;
}
// Clusters of up to 8, of one kernel perhaps less. Above that an error is the answer, as the real one
// has it for some sizes.
int cuOccupancyMaxActiveClusters(int *clusters, struct Function *function,
                                 const struct Launch *launch) {
  unsigned cluster = cluster_of(launch);
  if (!in_context() || !function->loaded || setting("MOCK_CAPABILITY", 9) < 9) return INVALID_VALUE;
  if (launch->block[0] != 256 || launch->grid[0] % cluster) return INVALID_VALUE;
  if ((int)launch->shared > function->most_shared) return INVALID_VALUE;
  if (cluster > 8) return 912;
  int most = function == &functions[3] ? setting("MOCK_CLUSTER", 8) : 8;
  *clusters = (int)cluster <= most ? 4 : 0;
  return SUCCESS;
}

// All kernels are `(float *x, uint32_t count, float value)`.
int cuLaunchKernelEx(const struct Launch *launch, struct Function *function, void **arguments,
                     void **extra) {
  if (!may_use(launch->stream) || !function->loaded || extra) return INVALID_CONTEXT;
  if ((int)launch->shared > function->most_shared) return INVALID_VALUE;
  note("launch %s grid %u %u %u block %u %u %u cluster %u shared %u on %s", function->name,
       launch->grid[0], launch->grid[1], launch->grid[2], launch->block[0], launch->block[1],
       launch->block[2], cluster_of(launch), launch->shared, on(launch->stream));
  float *x = *(float **)arguments[0];
  for (uint32_t i = 0; i < *(uint32_t *)arguments[1]; i++) x[i] = *(float *)arguments[2];
  return SUCCESS;
}
