#include <Python.h>

#include "tensor.h"

#include <memory>

#include "dlpack.h"

namespace fastgen {
namespace {

// Interned once: reading a tensor's attributes is on the path of every call.
struct Names {
  PyObject* data_ptr = PyUnicode_InternFromString("data_ptr");
  PyObject* shape = PyUnicode_InternFromString("shape");
  PyObject* stride = PyUnicode_InternFromString("stride");
  PyObject* dtype = PyUnicode_InternFromString("dtype");
  PyObject* is_cpu = PyUnicode_InternFromString("is_cpu");
  PyObject* is_neg = PyUnicode_InternFromString("is_neg");
  PyObject* is_cuda = PyUnicode_InternFromString("is_cuda");
  PyObject* float32;
  PyObject* float64;
  PyObject* bfloat16;
  PyObject* int32;
  PyObject* int64;
  PyObject* tensor;
  PyObject* parameter;
  const dlpack::Exchange* exchange = nullptr;  // null where torch is older than 2.10
  Names() {
    PyObject* torch = PyImport_ImportModule("torch");
    if (!torch) throw TypeError("torch cannot be imported");
    float32 = PyObject_GetAttrString(torch, "float32");
    float64 = PyObject_GetAttrString(torch, "float64");
    bfloat16 = PyObject_GetAttrString(torch, "bfloat16");
    int32 = PyObject_GetAttrString(torch, "int32");
    int64 = PyObject_GetAttrString(torch, "int64");
    tensor = PyObject_GetAttrString(torch, "Tensor");
    PyObject* nn = PyObject_GetAttrString(torch, "nn");
    parameter = PyObject_GetAttrString(nn, "Parameter");
    if (PyObject* capsule = PyObject_GetAttrString(tensor, "__dlpack_c_exchange_api__")) {
      const auto* found = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
      if (found && found->major == 1) exchange = found;
      Py_DECREF(capsule);
    }
    PyErr_Clear();
    Py_DECREF(nn);
    Py_DECREF(torch);
  }
  DType dtype_of(PyObject* dtype) const {
    if (dtype == float32) return DType::float32;
    if (dtype == float64) return DType::float64;
    if (dtype == bfloat16) return DType::bfloat16;
    if (dtype == int32) return DType::int32;
    if (dtype == int64) return DType::int64;
    return DType::other;
  }
};

const Names& names() {
  static const Names* n = new Names;  // never freed: the interpreter may be gone before statics are
  return *n;
}

struct Release {
  void operator()(PyObject* o) const { Py_DECREF(o); }
};
using Object = std::unique_ptr<PyObject, Release>;

Object checked(PyObject* o, const char* what) {
  if (o) return Object(o);
  PyErr_Clear();
  throw TypeError(std::string("expected a strided torch.Tensor with storage, found an object without ") + what);
}

void read_sizes(const Object& tuple, std::array<int64_t, kMaxDims>& out, int& dims) {
  if (!PyTuple_Check(tuple.get())) throw TypeError("expected a torch.Tensor whose shape and strides are tuples");
  dims = static_cast<int>(PyTuple_GET_SIZE(tuple.get()));
  if (dims > kMaxDims) throw TypeError("expected a torch.Tensor of at most 4 dimensions");
  for (int i = 0; i < dims; ++i) {
    out[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple.get(), i));
    if (out[i] != -1 || !PyErr_Occurred()) continue;
    PyErr_Clear();
    throw TypeError("expected a torch.Tensor whose shape and strides are integers");
  }
}

std::string describe(const int64_t* sizes, size_t n) {
  std::string s = "(";
  for (size_t i = 0; i < n; ++i) s += (i ? ", " : "") + std::to_string(sizes[i]);
  return s + (n == 1 ? ",)" : ")");
}

const char* name_of(DType d) {
  switch (d) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::bfloat16:
      return "bfloat16";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
    default:
      return "another dtype";
  }
}

}  // namespace

int64_t Tensor::numel() const {
  int64_t n = 1;
  for (int i = 0; i < dims; ++i) n *= shape[i];
  return n;
}

bool Tensor::contiguous() const {
  if (numel() == 0) return true;
  int64_t expected = 1;
  for (int i = dims - 1; i >= 0; --i) {
    if (shape[i] != 1 && stride[i] != expected) return false;
    expected *= shape[i];
  }
  return true;
}

namespace {

DType dtype_of(const dlpack::DataType& d) {
  if (d.lanes != 1) return DType::other;
  if (d.code == dlpack::kFloat) return d.bits == 32 ? DType::float32 : d.bits == 64 ? DType::float64 : DType::other;
  if (d.code == dlpack::kBfloat) return d.bits == 16 ? DType::bfloat16 : DType::other;
  if (d.code == dlpack::kInt) return d.bits == 32 ? DType::int32 : d.bits == 64 ? DType::int64 : DType::other;
  return DType::other;
}

// Fills `t` in a tenth of the time that the attributes take; false where they have to be asked.
bool read_view(const Names& n, PyObject* o, Tensor& t) {
  const auto* type = reinterpret_cast<PyObject*>(Py_TYPE(o));
  if (!n.exchange || (type != n.tensor && type != n.parameter)) return false;
  dlpack::View view{};
  if (n.exchange->view(o, &view)) {
    PyErr_Clear();
    return false;
  }
  if (view.dims > kMaxDims || (view.device.type != dlpack::kCpu && view.device.type != dlpack::kCuda)) return false;
  t.data = view.data ? static_cast<char*>(view.data) + view.byte_offset : nullptr;
  t.dtype = dtype_of(view.dtype);
  t.dims = view.dims;
  t.device = view.device.type == dlpack::kCpu ? Device::cpu : Device::cuda;
  for (int i = 0; i < t.dims; ++i) t.shape[i] = view.shape[i], t.stride[i] = view.strides[i];
  return t.data || t.numel() == 0;
}

}  // namespace

bool read_plain(void* object, Tensor& t) {
  const Names& n = names();
  PyObject* o = static_cast<PyObject*>(object);
  return read_view(n, o, t) && checked(PyObject_CallMethodNoArgs(o, n.is_neg), "is_neg()").get() == Py_False;
}

Tensor read_tensor(void* object) {
  const Names& n = names();
  PyObject* o = static_cast<PyObject*>(object);
  Tensor t;
  if (read_view(n, o, t)) return t;
  int stride_dims = 0;
  read_sizes(checked(PyObject_GetAttr(o, n.shape), "shape"), t.shape, t.dims);
  read_sizes(checked(PyObject_CallMethodNoArgs(o, n.stride), "stride()"), t.stride, stride_dims);
  t.dtype = n.dtype_of(checked(PyObject_GetAttr(o, n.dtype), "dtype").get());
  if (checked(PyObject_GetAttr(o, n.is_cpu), "is_cpu").get() == Py_True)
    t.device = Device::cpu;
  else if (checked(PyObject_GetAttr(o, n.is_cuda), "is_cuda").get() == Py_True)
    t.device = Device::cuda;
  t.data = PyLong_AsVoidPtr(checked(PyObject_CallMethodNoArgs(o, n.data_ptr), "data_ptr()").get());
  if (PyErr_Occurred()) PyErr_Clear();
  if (stride_dims != t.dims) throw TypeError("expected a torch.Tensor with one stride per dimension");
  if (!t.data && t.numel() > 0) throw TypeError("expected a torch.Tensor with storage, found a null data pointer");
  return t;
}

void fail(const std::string& message) { throw std::invalid_argument(message); }

void expect_on(Device device, const Tensor& t, const char* name, DType dtype) {
  if (t.device != device) fail(std::string(name) + ": expected a " + (device == Device::cpu ? "CPU" : "CUDA") + " tensor");
  if (t.dtype != dtype) throw TypeError(std::string(name) + ": expected " + name_of(dtype) + ", found " + name_of(t.dtype));
}

void expect_shape(const Tensor& t, const char* name, std::initializer_list<int64_t> shape) {
  bool same = t.dims == static_cast<int>(shape.size());
  for (int i = 0; same && i < t.dims; ++i) same = t.shape[i] == shape.begin()[i];
  if (!same)
    fail(std::string(name) + ": expected shape " + describe(shape.begin(), shape.size()) + ", found " +
         describe(t.shape.data(), t.dims));
}

void expect_contiguous(const Tensor& t, const char* name) {
  if (!t.contiguous()) fail(std::string(name) + ": expected a contiguous tensor");
}

void expect_unit_stride(const Tensor& t, const char* name) {
  if (t.dims > 0 && t.size(-1) > 1 && t.step(-1) != 1)
    fail(std::string(name) + ": expected stride 1 along the last dimension, found " + std::to_string(t.step(-1)));
}

}  // namespace fastgen
