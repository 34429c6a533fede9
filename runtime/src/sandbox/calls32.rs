//! The system calls of 32-bit programs, which the processors of some architectures run as well: Docker's
//! profile lists x86 beside amd64, and arm beside arm64, with the same calls.
//!
//! Facts: the names of moby/moby `profiles/seccomp/default.json`, with the numbers of Linux
//! (`arch/x86/entry/syscalls/syscall_32.tbl` and `arch/arm/tools/syscall.tbl`).

/// What is known of the calls of another architecture.
pub(super) struct Calls {
    /// Its number in `linux/audit.h`.
    pub architecture: u32,
    /// Calls that are allowed: first and last of each range.
    pub allowed: &'static [(u32, u32)],
    pub clone: u32,
    pub clone3: u32,
    pub socket: u32,
    pub personality: u32,
    /// Calls that change owners.
    pub chown: &'static [u32],
}

#[cfg(target_arch = "x86_64")]
pub(super) const CALLS: Option<Calls> = Some(Calls {
    architecture: 0x4000_0003,
    allowed: X86,
    clone: 120,
    clone3: 435,
    socket: 359,
    personality: 136,
    chown: &[16, 95, 182, 198, 207, 212, 298],
});
#[cfg(target_arch = "aarch64")]
pub(super) const CALLS: Option<Calls> = Some(Calls {
    architecture: 0x4000_0028,
    allowed: ARM,
    clone: 120,
    clone3: 435,
    socket: 281,
    personality: 136,
    chown: &[16, 95, 182, 198, 207, 212, 325],
});
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) const CALLS: Option<Calls> = None;

#[rustfmt::skip]
#[cfg(target_arch = "x86_64")]
const X86: &[(u32, u32)] = &[
    (0, 16), (19, 20), (23, 24), (26, 27), (29, 30), (33, 33), (36, 43), (45, 47), (49, 50),
    (54, 55), (57, 57), (60, 61), (63, 66), (70, 71), (75, 78), (80, 83), (85, 85), (90, 97),
    (99, 100), (102, 102), (104, 108), (114, 114), (116, 119), (122, 126), (132, 133), (138, 148),
    (150, 165), (168, 168), (170, 187), (190, 216), (218, 221), (224, 250), (252, 252),
    (254, 263), (265, 272), (277, 282), (284, 284), (289, 293), (295, 309), (311, 316),
    (318, 335), (337, 337), (339, 341), (343, 345), (347, 348), (351, 356), (358, 358),
    (360, 373), (375, 383), (385, 386), (393, 403), (405, 414), (416, 424), (434, 434),
    (436, 437), (439, 439), (441, 441), (444, 449), (451, 456), (463, 466),
];

#[rustfmt::skip]
#[cfg(target_arch = "aarch64")]
const ARM: &[(u32, u32)] = &[
    (0, 6), (8, 12), (14, 16), (19, 20), (23, 24), (26, 26), (29, 29), (33, 33), (36, 43),
    (45, 47), (49, 50), (54, 55), (57, 57), (60, 61), (63, 66), (70, 71), (75, 75), (77, 78),
    (80, 81), (83, 83), (85, 85), (91, 97), (99, 100), (104, 108), (114, 114), (116, 116),
    (118, 119), (122, 122), (124, 126), (132, 133), (138, 148), (150, 165), (168, 168),
    (170, 187), (190, 217), (219, 221), (224, 248), (250, 253), (256, 261), (263, 270),
    (274, 280), (282, 308), (312, 312), (314, 318), (322, 336), (338, 343), (345, 346),
    (348, 363), (365, 366), (368, 370), (372, 374), (376, 377), (380, 385), (387, 387),
    (389, 399), (403, 403), (405, 414), (416, 424), (434, 434), (436, 437), (439, 439),
    (441, 441), (444, 449), (451, 456), (463, 466), (0xf0001, 0xf0002), (0xf0005, 0xf0005),
];
