//! Backends made with CubeCL (wgpu, CUDA): the default bodies run as they are.

use burn_cubecl::element::BoolElement;
use burn_cubecl::{CubeBackend, CubeRuntime, FloatElement, IntElement};

use crate::LowRankBackend;

impl<R: CubeRuntime, F: FloatElement, I: IntElement, BT: BoolElement> LowRankBackend for CubeBackend<R, F, I, BT> {}
