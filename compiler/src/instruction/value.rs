//! Parsers for values that are only known once variables are expanded: ports, modes, owners,
//! signals, sizes.

use rbc_ir::{ModeChange, Owner, UserRef};

/// Why a value is not accepted.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ValueError {
    /// EXPOSE: neither a port nor a range.
    #[error("invalid port {spec:?}: {reason}")]
    Port {
        /// The value.
        spec: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `--chmod`: digits that are no mode.
    #[error("invalid chmod parameter: '{0}': it should be an octal number from 0 to 07777")]
    OctalMode(String),
    /// `--chmod`: letters that are no change of modes.
    #[error("invalid chmod parameter: '{0}': it should be octal, or symbolic like u=rwX,go-w")]
    SymbolicMode(String),
    /// STOPSIGNAL: no such signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// A size.
    #[error("invalid size: '{0}'")]
    Size(String),
    /// A truth value.
    #[error("invalid truth value: {0:?}")]
    Bool(String),
}

/// The ports of one word of EXPOSE (`80`, `80/udp`, `8000-8010`, `[IP:][HOSTPORT:]PORT`), each as
/// `PORT/PROTOCOL`. Addresses and host ports are checked and dropped, as in BuildKit.
pub fn parse_expose(spec: &str) -> Result<Vec<String>, ValueError> {
    let wrong = |reason: String| ValueError::Port { spec: spec.to_owned(), reason };
    let mut parts = spec.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host_port = parts.next().unwrap_or_default();
    let address = parts.next().unwrap_or_default();
    let (port, protocol) = container.split_once('/').unwrap_or((container, ""));
    if port.is_empty() {
        return Err(wrong("no port specified".to_owned()));
    }
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(wrong(format!("no such protocol: {protocol} (want tcp, udp or sctp)"))),
    };
    if !address.is_empty() {
        let bare = match address.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').unwrap_or(address),
            None => address,
        };
        if bare.parse::<std::net::IpAddr>().is_err() {
            return Err(wrong(format!("not an IP address: {address}")));
        }
    }
    let (start, end) =
        port_range(port).ok_or_else(|| wrong(format!("{port:?} is no port or range of ports")))?;
    if !host_port.is_empty() {
        let (host_start, host_end) = port_range(host_port).ok_or_else(|| {
            wrong(format!("host port {host_port:?} is no port or range of ports"))
        })?;
        if end != start && end - start != host_end - host_start {
            return Err(wrong("container and host ports are ranges of different sizes".to_owned()));
        }
    }
    Ok((start..=end).map(|port| format!("{port}/{protocol}")).collect())
}

/// `80` or `80-90`.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start <= end).then_some((start, end))
}

/// A value of `--chmod`: octal, or a symbolic change as chmod(1) takes it.
pub fn parse_chmod(text: &str) -> Result<ModeChange, ValueError> {
    if text.starts_with(|char: char| char.is_ascii_digit()) {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if digits && mode <= 0o7777 => Ok(ModeChange::Octal(mode)),
            _ => Err(ValueError::OctalMode(text.to_owned())),
        };
    }
    if text.split(',').all(is_mode_clause) {
        return Ok(ModeChange::Symbolic(text.to_owned()));
    }
    Err(ValueError::SymbolicMode(text.to_owned()))
}

/// `[ugoa]*([-+=][rwxXstugo]*)+`
fn is_mode_clause(clause: &str) -> bool {
    let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    actions.starts_with(['+', '-', '='])
        && actions.bytes().all(|byte| b"+-=rwxXstugo".contains(&byte))
}

/// A value of `--chown`: `USER`, `USER:GROUP`, each by number or name. `root` and an empty half are
/// 0. A negative number wraps, as in BuildKit.
pub fn parse_owner(text: &str) -> Owner {
    let one = |part: &str| match (part, part.parse::<i32>()) {
        ("" | "root", _) => UserRef::Id(0),
        (_, Ok(id)) => UserRef::Id(id.cast_unsigned()),
        _ => UserRef::Name(part.to_owned()),
    };
    match text.split_once(':') {
        Some((user, group)) => Owner { user: one(user), group: Some(one(group)) },
        None => Owner { user: one(text), group: None },
    }
}

/// Checks a value of STOPSIGNAL: a number, or a name with or without `SIG`.
pub fn check_signal(text: &str) -> Result<(), ValueError> {
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT",
        "KILL", "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM",
        "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
        "RTMIN", "RTMAX",
    ];
    let wrong = || ValueError::Signal(text.to_owned());
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<i64>() {
            Ok(number) if number != 0 => Ok(()),
            _ => Err(wrong()),
        };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, most: u8| {
        let number = name.strip_prefix(prefix).filter(|digits| !digits.starts_with('0'));
        number.and_then(|digits| digits.parse::<u8>().ok()).is_some_and(|number| number <= most)
    };
    let known = NAMES.contains(&name) || offset("RTMIN+", 15) || offset("RTMAX-", 14);
    if known { Ok(()) } else { Err(wrong()) }
}

/// A size in bytes in Docker's notation: `64m`, `1.5GiB`, `100 kB`; units are powers of 1024.
pub fn parse_size(text: &str) -> Result<u64, ValueError> {
    let wrong = || ValueError::Size(text.to_owned());
    let last = text.rfind(|char: char| char.is_ascii_digit() || char == '.' || char == ' ');
    let last = last.ok_or_else(wrong)?;
    let (number, unit) =
        (text[..=last].strip_suffix(' ').unwrap_or(&text[..=last]), &text[last + 1..]);
    if !number.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte)) {
        return Err(wrong());
    }
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let unit = unit.to_ascii_lowercase();
    let factor = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit != "ib" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1_u64 << 50,
        _ => return Err(wrong()),
    };
    let size = number * factor as f64;
    if !(0.0..i64::MAX as f64).contains(&size) {
        return Err(wrong());
    }
    Ok(size as u64)
}

/// A truth value in Go's notation (`strconv.ParseBool`).
pub fn parse_bool(text: &str) -> Result<bool, ValueError> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(ValueError::Bool(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let ports = |spec: &str| parse_expose(spec).unwrap().join(" ");
        assert_eq!(ports("80"), "80/tcp");
        assert_eq!(ports("53/UDP"), "53/udp");
        assert_eq!(ports("80/"), "80/tcp");
        assert_eq!(ports("8000-8002/sctp"), "8000/sctp 8001/sctp 8002/sctp");
        assert_eq!(ports("127.0.0.1:1:80"), "80/tcp");
        assert_eq!(ports("[::1]::80"), "80/tcp");
        assert_eq!(ports("1-3:80"), "80/tcp");
        for (spec, message) in [
            ("80x", "invalid port \"80x\": \"80x\" is no port or range of ports"),
            ("", "invalid port \"\": no port specified"),
            ("80/http", "invalid port \"80/http\": no such protocol: http (want tcp, udp or sctp)"),
            ("65536", "invalid port \"65536\": \"65536\" is no port or range of ports"),
            ("9-8", "invalid port \"9-8\": \"9-8\" is no port or range of ports"),
            ("x:1:80", "invalid port \"x:1:80\": not an IP address: x"),
            (
                "1-2:1-3",
                "invalid port \"1-2:1-3\": container and host ports are ranges of different sizes",
            ),
        ] {
            assert_eq!(parse_expose(spec).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn modes() {
        assert_eq!(parse_chmod("755"), Ok(ModeChange::Octal(0o755)));
        assert_eq!(parse_chmod("07777"), Ok(ModeChange::Octal(0o7777)));
        for symbolic in ["u=rwX,go-w", "+x", "a+X", "g=u-w", "u+s", "=", "o+t,u-x"] {
            assert_eq!(parse_chmod(symbolic), Ok(ModeChange::Symbolic(symbolic.into())));
        }
        for bad in ["999", "10000", "64a", "0o755"] {
            assert_eq!(parse_chmod(bad), Err(ValueError::OctalMode(bad.into())));
        }
        for bad in ["rwx", "u", "", "u+q", "u=r,", "+755"] {
            assert_eq!(parse_chmod(bad), Err(ValueError::SymbolicMode(bad.into())), "{bad}");
        }
    }

    #[test]
    fn owners() {
        let (id, name) = (UserRef::Id, |name: &str| UserRef::Name(name.into()));
        assert_eq!(parse_owner("1"), Owner { user: id(1), group: None });
        assert_eq!(parse_owner("root:app"), Owner { user: id(0), group: Some(name("app")) });
        assert_eq!(parse_owner("app:"), Owner { user: name("app"), group: Some(id(0)) });
        assert_eq!(parse_owner(":app"), Owner { user: id(0), group: Some(name("app")) });
        assert_eq!(
            parse_owner("9999999999:5"),
            Owner { user: name("9999999999"), group: Some(id(5)) }
        );
    }

    #[test]
    fn signals() {
        for good in ["9", "KILL", "sigterm", "SIGRTMIN+3", "RTMAX-14", "65"] {
            assert_eq!(check_signal(good), Ok(()), "{good}");
        }
        for bad in ["", "0", "NOPE", "RTMIN+16", "SIGSIGKILL", "9x"] {
            assert!(check_signal(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", 0),
            ("64m", 64 << 20),
            ("1.5KiB", 1536),
            ("10 kB", 10240),
            ("7b", 7),
            ("2G", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1ib", "1kib2", "inf", "1e400", "99999999p"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
