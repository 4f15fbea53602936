//! AMX: products of bfloat16 tiles. The instructions have no stable intrinsics.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::avx512_bf16::Avx512Bf16;
use super::pack::{LINES, Line};
use super::panels::Sums;

/// Exists only where the processor has these instructions and the system lets this process use them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amx(Avx512Bf16);

impl Amx {
    pub fn detect() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        let vectors = Avx512Bf16::detect()?;
        ALLOWED.get_or_init(|| has_tiles() && may_use_tiles()).then_some(Self(vectors))
    }

    pub fn vectors(self) -> Avx512Bf16 {
        self.0
    }

    /// Makes this thread's tiles 16 lines of 64 bytes.
    pub fn configure(self) -> Tiles {
        /// Palette 1, as `ldtilecfg` reads it.
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            bytes_per_row: [u16; 16],
            rows: [u8; 16],
        }
        let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], bytes_per_row: [0; 16], rows: [0; 16] };
        config.bytes_per_row[..8].fill(64);
        config.rows[..8].fill(LINES as u8);
        // SAFETY: `self` exists only where tiles may be used, and the operand is the 64 bytes that are read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, readonly, preserves_flags)) };
        Tiles(PhantomData)
    }
}

/// Whether the processor has AMX-TILE and AMX-BF16 (CPUID leaf 7), used or not.
fn has_tiles() -> bool {
    const WANTED: u32 = 1 << 22 | 1 << 24;
    __cpuid_count(7, 0).edx & WANTED == WANTED
}

/// Linux hands out tile registers, which make saved contexts large, on request alone.
#[cfg(target_os = "linux")]
fn may_use_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this request takes a number and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn may_use_tiles() -> bool {
    false
}

/// The tiles of this thread, configured. Stays on it.
pub(super) struct Tiles(PhantomData<*const ()>);

impl Tiles {
    /// Sums over two tiles of rows and two of columns, each over the whole inner dimension.
    pub fn multiply(&self, left: [&[Line]; 2], right: [&[Line]; 2], sums: &mut Sums) {
        let lines = left[0].len();
        assert!(lines > 0 && lines.is_multiple_of(LINES));
        assert!([left[1], right[0], right[1]].iter().all(|tiles| tiles.len() == lines));
        // SAFETY: the tiles are configured; each operand has `lines / 16` tiles of 1024 bytes, which are read one after the
        // other, and the sums are four such tiles.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{a} + {line}]",
                "tileloadd tmm6, [{c} + {line}]",
                "tileloadd tmm7, [{d} + {line}]",
                "tileloadd tmm5, [{b} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {a}, 1024",
                "add {b}, 1024",
                "add {c}, 1024",
                "add {d}, 1024",
                "dec {steps}",
                "jnz 2b",
                "tilestored [{sums} + {line}], tmm0",
                "tilestored [{sums} + {line} + 1024], tmm1",
                "tilestored [{sums} + {line} + 2048], tmm2",
                "tilestored [{sums} + {line} + 3072], tmm3",
                a = inout(reg) left[0].as_ptr() => _,
                b = inout(reg) left[1].as_ptr() => _,
                c = inout(reg) right[0].as_ptr() => _,
                d = inout(reg) right[1].as_ptr() => _,
                steps = inout(reg) lines / LINES => _,
                sums = in(reg) &raw mut *sums,
                line = in(reg) size_of::<Line>(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles were configured, and none is in use.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}
