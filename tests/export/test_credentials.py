"""Tests of C2PA signatures, with a certificate made for the test. They need c2pa-python."""

import datetime
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from dreamportrait.cli.verify import verify as command
from dreamportrait.export import credentials
from dreamportrait.export.credentials import CERTIFICATE, KEY, find_identity
from dreamportrait.export.encoding import check_video_target, encode
from dreamportrait.export.provenance import MADE_BY_AI, Claim, inspect, verify
from dreamportrait.export.sheets import save_picture
from dreamportrait.export.xmp import ProvenanceError

c2pa = pytest.importorskip("c2pa")
x509 = pytest.importorskip("cryptography.x509")

CLAIM = Claim(model="mini", model_sha256="0f" * 32)


def write_identity(folder: Path, kind: str = "ec", days: int = 1) -> tuple[Path, Path]:
    """Write a certificate that vouches for itself, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    makers = {
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ec384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "short": lambda: rsa.generate_private_key(65537, 1024),
        "unknown": lambda: ec.generate_private_key(ec.SECP256K1()),
    }
    key = makers[kind]()
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "Jane"),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Studio"),
        ]
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    usage = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False)
    usage |= dict.fromkeys(("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(False, None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), True)
        .add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), False)
        .sign(key, None if kind == "ed25519" else hashes.SHA256())
    )
    paths = folder / f"{kind}.pem", folder / f"{kind}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    layout = serialization.PrivateFormat.TraditionalOpenSSL if kind == "ec" else serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, layout, serialization.NoEncryption()))
    return paths


@pytest.fixture
def identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sign with a certificate in a folder of its own, and return the folder."""
    folder = tmp_path / "identity"
    folder.mkdir()
    use(monkeypatch, *write_identity(folder))
    return folder


def use(monkeypatch: pytest.MonkeyPatch, certificate: Path, key: Path) -> None:
    monkeypatch.setenv(CERTIFICATE, str(certificate))
    monkeypatch.setenv(KEY, str(key))


def picture() -> Image.Image:
    return Image.radial_gradient("L").resize((40, 31)).convert("RGB")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_signed_pictures(identity: Path, tmp_path: Path, suffix: str) -> None:
    path, plain = tmp_path / f"head{suffix}", tmp_path / f"plain{suffix}"
    save_picture(picture(), path, claim=CLAIM)
    save_picture(picture(), plain)  # without a claim, nothing is signed
    evidence = inspect(path)
    assert evidence.claim == CLAIM and evidence.signer == "Jane" and not evidence.unchecked
    assert inspect(plain) is None
    with Image.open(path) as a, Image.open(plain) as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_signed_videos(identity: Path, tmp_path: Path, suffix: str) -> None:
    if suffix != ".gif":
        pytest.importorskip("av")
    encode([np.asarray(picture())] * 3, tmp_path / f"head{suffix}", 10, CLAIM)
    evidence = inspect(tmp_path / f"head{suffix}")
    assert evidence.claim == CLAIM and evidence.signer == "Jane"


def test_what_the_signature_says(identity: Path, tmp_path: Path) -> None:
    save_picture(picture(), tmp_path / "head.png", claim=CLAIM)
    manifest = c2pa.Reader(str(tmp_path / "head.png")).get_active_manifest()
    (actions,) = [each for each in manifest["assertions"] if each["label"].startswith("c2pa.actions")]
    (action,) = actions["data"]["actions"]
    assert action["action"] == "c2pa.created" and action["digitalSourceType"] == MADE_BY_AI
    assert action["softwareAgent"] == {"name": "DreamPortrait", "version": CLAIM.version}
    assert "thumbnail" not in manifest


def test_a_file_that_was_changed(identity: Path, tmp_path: Path) -> None:
    path = tmp_path / "head.jpg"
    save_picture(picture(), path, claim=CLAIM)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # in the pixels
    path.write_bytes(data)
    with pytest.raises(ProvenanceError, match="signature does not fit: the file was changed after it was signed"):
        verify(path)
    path.write_bytes(bytes(data).replace(b"Model>mini<", b"Model>maxi<"))
    with pytest.raises(ProvenanceError, match="signature does not fit"):
        verify(path)


def test_damaged_signatures_never_crash(identity: Path, tmp_path: Path) -> None:
    path, random, refused = tmp_path / "head.png", np.random.default_rng(0), 0
    save_picture(picture(), path, claim=CLAIM)
    data = path.read_bytes()
    start = data.index(b"caBX")
    size = int.from_bytes(data[start - 4 : start], "big")
    for place in random.integers(start + 4, start + 4 + size, 100):
        changed = bytearray(data)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        try:
            verify(path)
        except ProvenanceError:
            refused += 1
    print("REFUSED", refused)
    assert refused > 40  # measured 60 of 100: the others hit the space that is reserved for longer signatures


def test_signatures_of_other_programs(identity: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    for kind, expected in ((MADE_BY_AI, Claim("Other", None)), (MADE_BY_AI + "Not", None)):
        signed = credentials.sign(buffer.getvalue(), find_identity(), "Other", "3", kind)
        (tmp_path / "other.png").write_bytes(signed)
        assert verify(tmp_path / "other.png") == expected
    assert credentials.sign(buffer.getvalue(), find_identity(), "Other", None, MADE_BY_AI) != buffer.getvalue()


def test_without_the_library(identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "head.png"
    save_picture(picture(), path, claim=CLAIM)
    monkeypatch.setattr(credentials.util, "find_spec", lambda name: None)
    evidence = inspect(path)
    assert evidence.claim == CLAIM and evidence.unchecked and evidence.signer is None
    assert "pip install 'dreamportrait[c2pa]'" in CliRunner().invoke(command, [str(path)]).output
    with pytest.raises(ValueError, match=r"c2pa-python is not installed: pip install 'dreamportrait\[c2pa\]'"):
        check_video_target(tmp_path / "film.gif", 10)  # before frames are rendered


def test_the_command(identity: Path, tmp_path: Path) -> None:
    save_picture(picture(), tmp_path / "head.png", claim=CLAIM)
    done = CliRunner().invoke(command, [str(tmp_path / "head.png")])
    assert (
        done.exit_code == 0 and "by 'Jane', and fits the file; whether to trust that name is up to you" in done.output
    )
    assert json.loads(CliRunner().invoke(command, [str(tmp_path / "head.png"), "--json"]).output)["signer"] == "Jane"


@pytest.mark.parametrize("kind", ["ec384", "ed25519", "rsa"])
def test_kinds_of_keys(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, *write_identity(tmp_path, kind))
    save_picture(picture(), tmp_path / "head.png", claim=CLAIM)
    assert inspect(tmp_path / "head.png").signer == "Jane"


def test_wrong_identities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = write_identity(tmp_path)
    _, other = write_identity(tmp_path, "ed25519")
    (tmp_path / "text").write_text("no key")
    monkeypatch.setenv(CERTIFICATE, str(certificate))
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(ValueError, match=f"set both {CERTIFICATE} and {KEY}, or neither"):
        find_identity()
    for pair, message in (
        ((certificate, tmp_path / "text"), "text is no private key in PEM"),
        ((tmp_path / "text", key), "text is no certificate in PEM"),
        ((certificate, other), "ed25519.key is not the key of the first certificate"),
        (write_identity(tmp_path, "unknown"), "C2PA signs with keys of RSA, Ed25519 or the curves"),
        (write_identity(tmp_path, "short"), "cannot sign"),
        (write_identity(tmp_path, "ec384", days=-1), "cannot sign"),
    ):
        use(monkeypatch, *pair)
        with pytest.raises(ValueError, match=message):
            find_identity()
    use(monkeypatch, tmp_path / "none.pem", key)
    with pytest.raises(FileNotFoundError):
        find_identity()
