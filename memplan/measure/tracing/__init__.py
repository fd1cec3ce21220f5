"""Any torch module traced without data: PyTorch's own dispatcher and autograd give the order and the lifetimes of a
step, fake tensors of the device cpu stand in for the real ones, and the rules here add what kernels take inside."""
