#!/usr/bin/env python3
"""Makes the base images of the conformance cases from this machine's static busybox.

    images.py FOLDER

Writes FOLDER/busybox.oci.tar and FOLDER/alpine.oci.tar (busybox with Alpine's release files).
Needs /bin/busybox (Debian's package busybox-static). The cases compare what a build adds to its
base, so any version of busybox will do.
"""
import gzip, hashlib, io, json, pathlib, platform, subprocess, sys, tarfile

EPOCH = 1700000000
FILES = {
    "etc/passwd": (0o644, """root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
sync:x:4:100:sync:/bin:/bin/sync
mail:x:8:8:mail:/var/spool/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
operator:x:37:37:Operator:/var:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""),
    "etc/group": (0o644, """root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
lp:x:7:
mail:x:8:
www-data:x:33:
operator:x:37:
wheel:x:10:root
users:x:100:
nogroup:x:65534:
"""),
    "etc/shadow": (0o644, "root:*:::::::\nnobody:*:::::::\n"),
}
FOLDERS = ["bin", "dev", "etc", "home", "root", "tmp", "usr", "usr/bin", "usr/sbin", "var",
           "var/spool", "var/spool/mail", "var/www"]
ALPINE = {
    "etc/alpine-release": (0o644, "3.22.0\n"),
    "etc/os-release": (0o644, 'ID=alpine\nNAME="Alpine Linux"\nVERSION_ID=3.22.0\n'),
}
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def layer(files, folders, links):
    """A gzipped layer tar with sorted entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in sorted([*files, *folders, *links]):
            entry = tarfile.TarInfo(name)
            entry.mtime = EPOCH
            if name in links:
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, links[name], 0o777
                tar.addfile(entry)
            elif name in files:
                entry.mode, data = files[name]
                data = data.encode() if isinstance(data, str) else data
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
                tar.addfile(entry)
    return out.getvalue()


def write_image(path, name, tar, created_by):
    blobs = {}

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"digest": "sha256:" + digest, "size": len(data)}

    kind = "application/vnd.oci.image."
    created = "2023-11-14T22:13:20Z"
    history = [{"created": created, "created_by": text, "comment": "buildkit.dockerfile.v0",
                **({"empty_layer": True} if n else {})} for n, text in enumerate(created_by)]
    config = {"architecture": ARCHITECTURE, "os": "linux", "created": created,
              "config": {"Env": ["PATH=/bin:/usr/bin:/usr/local/bin"], "Cmd": ["sh"],
                         "WorkingDir": "/", "ArgsEscaped": True},
              "history": history,
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]}}
    manifest = {"schemaVersion": 2, "mediaType": kind + "manifest.v1+json",
                "config": {"mediaType": kind + "config.v1+json", **blob(json.dumps(config).encode())},
                "layers": [{"mediaType": kind + "layer.v1.tar+gzip", **blob(gzip.compress(tar, mtime=0))}]}
    index = {"schemaVersion": 2, "mediaType": kind + "index.v1+json",
             "manifests": [{"mediaType": kind + "manifest.v1+json", **blob(json.dumps(manifest).encode()),
                            "annotations": {"io.containerd.image.name": "docker.io/library/" + name,
                                            "org.opencontainers.image.ref.name": "latest"}}]}
    with tarfile.open(path, "w") as out:
        def add(member, data):
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
        add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add("index.json", json.dumps(index).encode())
        for digest, data in sorted(blobs.items()):
            add("blobs/sha256/" + digest, data)


def make(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        busybox = pathlib.Path("/bin/busybox").read_bytes()
        applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True,
                                 check=True).stdout.split()
    except OSError as e:
        sys.exit("cannot use /bin/busybox (%s): install Debian's package busybox-static" % e)
    links = {"bin/" + a: "busybox" for a in applets if a != "busybox"}
    files = {**FILES, "bin/busybox": (0o755, busybox)}
    commands = ["COPY . / # buildkit", "ENV PATH=/bin:/usr/bin:/usr/local/bin", 'CMD ["sh"]']
    write_image(folder / "busybox.oci.tar", "busybox:latest", layer(files, FOLDERS, links), commands)
    write_image(folder / "alpine.oci.tar", "alpine:latest",
                layer({**files, **ALPINE}, FOLDERS, links), commands)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(sys.argv[1])
