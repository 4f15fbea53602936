//! The one backend that unit tests of the library run on.

use burn_autodiff::Autodiff;

pub type TestBackend = burn_flex::Flex;
pub type TestAutodiff = Autodiff<TestBackend>;
