//! Who a step runs as: `USER[:GROUP]` looked up in the root's own `/etc/passwd` and `/etc/group`.
//!
//! The rules are those of runc and BuildKit (moby/sys `user.GetExecUser`): names win over numbers,
//! a number need not be listed, and the supplementary groups are the primary one and those that list
//! the user's name, unless a group was asked for. The primary one is among them because a file that
//! denies a group must deny those who only joined it as well (CVE-2022-36109).

use super::error::SetupError;

/// The ids and the home of the step's user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups, the primary one first.
    pub groups: Vec<u32>,
    pub home: String,
}

/// The highest id that runc accepts.
const MAX_ID: i64 = i32::MAX as i64;

/// Resolves `user` (empty means root) with the contents of the two files; a missing file is empty.
pub(super) fn resolve(user: &str, passwd: &[u8], group: &[u8]) -> Result<Identity, SetupError> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, group),
        None => (user, ""),
    };
    let name = if name.is_empty() { "0" } else { name };
    let mut found = Identity { uid: 0, gid: 0, groups: Vec::new(), home: "/".to_owned() };
    let number = parse_id(name)?;
    let entry = lines(passwd)
        .map(|l| fields(l, 7))
        .find(|f| f[0] == name || number.is_some_and(|n| f[2].parse() == Ok(n)));
    let mut listed_name = None;
    match (entry, number) {
        (Some(entry), _) => {
            found.uid = entry[2].parse().unwrap_or(0);
            found.gid = entry[3].parse().unwrap_or(0);
            entry[5].clone_into(&mut found.home);
            listed_name = Some(entry[0].clone());
        }
        (None, Some(number)) => found.uid = number,
        (None, None) => {
            return Err(SetupError::User(format!(
                "unable to find user {name}: no matching entries in passwd file"
            )));
        }
    }
    if !group_name.is_empty() {
        let number = parse_id(group_name)?;
        let entry = lines(group)
            .map(|l| fields(l, 4))
            .find(|f| f[0] == group_name || number.is_some_and(|n| f[2].parse() == Ok(n)));
        found.gid = match (entry, number) {
            (Some(entry), _) => entry[2].parse().unwrap_or(0),
            (None, Some(number)) => number,
            (None, None) => {
                return Err(SetupError::User(format!(
                    "unable to find group {group_name}: no matching entries in group file"
                )));
            }
        };
    } else if let Some(listed_name) = listed_name {
        found.groups = lines(group)
            .map(|l| fields(l, 4))
            .filter(|f| f[3].split(',').any(|member| member == listed_name))
            .filter_map(|f| f[2].parse().ok())
            .collect();
    }
    found.groups.retain(|group| *group != found.gid);
    found.groups.insert(0, found.gid);
    Ok(found)
}

fn parse_id(text: &str) -> Result<Option<u32>, SetupError> {
    match text.parse::<i64>() {
        Ok(id) if (0..=MAX_ID).contains(&id) => Ok(Some(id as u32)),
        Ok(_) => {
            Err(SetupError::User(format!("{text}: uids and gids must be in range 0-{MAX_ID}")))
        }
        Err(_) => Ok(None),
    }
}

fn lines(file: &[u8]) -> impl Iterator<Item = String> + '_ {
    file.split(|b| *b == b'\n')
        .map(|l| String::from_utf8_lossy(l).trim().to_owned())
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
}

/// The colon-separated fields of a line, filled up with empty ones to `count`.
fn fields(line: String, count: usize) -> Vec<String> {
    let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
    fields.resize(fields.len().max(count), String::new());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nmail:x:8:12:mail:/var/mail:/bin/false\n\n12:x:99:98::/odd:\n";
    const GROUP: &[u8] = b"root:x:0:\nmail:x:12:\nextra:x:777:bob,mail\nmore:x:5:mail\n";

    fn ids(user: &str) -> (u32, u32, Vec<u32>, String) {
        let i = resolve(user, PASSWD, GROUP).unwrap();
        (i.uid, i.gid, i.groups, i.home)
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(ids(""), (0, 0, vec![0], "/root".into()));
        assert_eq!(ids("mail"), (8, 12, vec![12, 777, 5], "/var/mail".into()));
        assert_eq!(ids("8"), (8, 12, vec![12, 777, 5], "/var/mail".into()));
        assert_eq!(ids("mail:root"), (8, 0, vec![0], "/var/mail".into()));
        assert_eq!(ids("1234:567"), (1234, 567, vec![567], "/".into()));
        assert_eq!(ids("1234"), (1234, 0, vec![0], "/".into()));
        assert_eq!(ids("12"), (99, 98, vec![98], "/odd".into()));
    }

    #[test]
    fn unknown_names_are_errors() {
        let message = |user| resolve(user, PASSWD, GROUP).unwrap_err().to_string();
        insta::assert_snapshot!(message("ghost"), @"unable to find user ghost: no matching entries in passwd file");
        insta::assert_snapshot!(message("mail:ghosts"), @"unable to find group ghosts: no matching entries in group file");
        insta::assert_snapshot!(message("-1"), @"-1: uids and gids must be in range 0-2147483647");
    }

    #[test]
    fn odd_files_do_not_break_it() {
        let i = resolve("7", b"\xff\xfe::\n:::::::\na:b\n", b"\0\0\n").unwrap();
        assert_eq!((i.uid, i.gid), (7, 0));
    }
}
