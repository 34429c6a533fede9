//! Names and the network as a step sees them: `/etc/hosts`, `/etc/resolv.conf`, loopback.

use std::fs;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use rbc_ir::ExtraHost;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::error::SetupError;
use super::mount::last_errno;

/// What `host-gateway` stands for among the addresses of `--add-host`.
const HOST_GATEWAY: &str = "host-gateway";

/// The content of `/etc/hosts`.
pub(super) fn hosts(hostname: &str, extra: &[ExtraHost]) -> String {
    let mut text = format!(
        "127.0.0.1\tlocalhost {hostname}\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    for entry in extra {
        let ip = if entry.ip == HOST_GATEWAY { host_address() } else { entry.ip.clone() };
        text.push_str(&format!("{ip}\t{}\n", entry.host));
    }
    text
}

/// The host's address as a step reaches it. Steps share the host's network, so that loopback
/// would do, but a service may listen on the outer address only; without a route, loopback.
fn host_address() -> String {
    // Connecting a datagram socket sends nothing; it only picks the local address.
    let local = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    local.map_or_else(|_| "127.0.0.1".to_owned(), |a| a.ip().to_string())
}

/// The content of `/etc/resolv.conf`: the host's. Where that names only systemd's stub, the real
/// servers are taken from where systemd-resolved keeps them.
pub(super) fn resolv_conf() -> Vec<u8> {
    let own = fs::read("/etc/resolv.conf").unwrap_or_default();
    let stub = own.split(|b| *b == b'\n').any(|line| line.trim_ascii() == b"nameserver 127.0.0.53");
    if stub && let Ok(real) = fs::read("/run/systemd/resolve/resolv.conf") {
        return real;
    }
    own
}

/// Brings the loopback device of a new network namespace up.
pub(super) fn loopback_up() -> Result<(), SetupError> {
    let failed = |errno: rustix::io::Errno| SetupError::System {
        what: "bring the loopback device up".to_owned(),
        errno: errno.raw_os_error(),
    };
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(failed)?;
    // SAFETY: an all-zero ifreq is valid (integers, addresses and characters only).
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call; the socket is open.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    if status == 0 { Ok(()) } else { Err(failed(last_errno())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_hosts_come_last() {
        let extra = [ExtraHost { host: "somehost".into(), ip: "10.1.2.3".into() }];
        let text = hosts("box", &extra);
        insta::assert_snapshot!(text, @r"
        127.0.0.1	localhost box
        ::1	localhost ip6-localhost ip6-loopback
        10.1.2.3	somehost
        ");
    }

    #[test]
    fn the_gateway_is_an_address() {
        let extra = [ExtraHost { host: "h".into(), ip: HOST_GATEWAY.into() }];
        let text = hosts("box", &extra);
        let line = text.lines().last().unwrap();
        let ip = line.split('\t').next().unwrap();
        assert!(ip.parse::<std::net::Ipv4Addr>().is_ok(), "{line}");
    }
}
