//! One per node: carries out VirtualMachineInstances.
