// The kernels that torch gets to know: see arm_core/native/__init__.py.

#include <torch/custom_class.h>
#include <torch/library.h>

#include "attention.hpp"
#include "layers.hpp"
#include "memory.hpp"

TORCH_LIBRARY(arm_core, library) {
  library.def("attend(Tensor q, Tensor k, Tensor v, Tensor mask, float scale) -> Tensor");
  library.class_<arm_core::Memory>("Memory").def(torch::init<at::Tensor>()).def("zeros", &arm_core::Memory::zeros);
  library.class_<arm_core::Layers>("Layers")
      .def(torch::init<c10::intrusive_ptr<arm_core::Memory>, const std::vector<at::Tensor>&,
                       const std::vector<int64_t>&>())
      .def("add", &arm_core::Layers::add)
      .def("run", &arm_core::Layers::run);
}

TORCH_LIBRARY_IMPL(arm_core, CPU, library) { library.impl("attend", &arm_core::attend); }
