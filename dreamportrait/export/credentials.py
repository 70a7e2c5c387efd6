"""Signs files by C2PA with the user's certificate, and checks such signatures. The library c2pa-python does the work.

It signs only with a certificate, so the user names one, with its private key, in two variables:

    DREAMPORTRAIT_C2PA_CERT=chain.pem     the certificate and those that vouch for it, PEM
    DREAMPORTRAIT_C2PA_KEY=key.pem        its private key, PEM without a password
"""

import io
import os
from importlib import import_module, util
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dreamportrait.core.errors import shown
from dreamportrait.export.embedding import GIF, JPEG, PNG, is_mp4, is_webp
from dreamportrait.export.xmp import ProvenanceError

CERTIFICATE, KEY = "DREAMPORTRAIT_C2PA_CERT", "DREAMPORTRAIT_C2PA_KEY"
# Nothing is fetched: a hostile file must not make this computer call a server. Thumbnails would only add bytes.
_SETTINGS = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_STATES = ("Valid", "Trusted")  # of a signature that fits the file
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}  # algorithms of elliptic curves
_TRIAL = b"GIF89a\1\0\1\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"  # a picture of one pixel


class Identity(NamedTuple):
    """What files are signed with, in the form that the library takes."""

    algorithm: str
    certificates: bytes  # PEM
    key: bytes  # PEM


class Signature(NamedTuple):
    signer: str  # as the certificate names its owner; anyone can make a certificate with any name
    generator: str | None  # the program that the signature says made the file by AI. None = it does not say so


def find_identity() -> Identity | None:
    """Return the identity that the two variables name, or None if neither is set. Raise an error if it is unusable."""
    certificates, key = os.environ.get(CERTIFICATE), os.environ.get(KEY)
    if not certificates and not key:
        return None
    if not certificates or not key:
        raise ValueError(f"set both {CERTIFICATE} and {KEY}, or neither: a signature needs a certificate and its key")
    if util.find_spec("c2pa") is None:
        raise ValueError(f"{CERTIFICATE} is set, but c2pa-python is not installed: pip install 'dreamportrait[c2pa]'")
    identity = _read_identity(Path(certificates), Path(key))
    sign(_TRIAL, identity, "trial", None, "trial")  # an old certificate or a short key shows only now
    return identity


def _read_identity(certificates: Path, path: Path) -> Identity:
    serialization = import_module("cryptography.hazmat.primitives.serialization")
    chain = certificates.read_bytes()
    try:
        owner = import_module("cryptography.x509").load_pem_x509_certificate(chain).public_key()
    except ValueError as error:
        raise ValueError(f"{certificates} is no certificate in PEM: {error}") from None
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError) as error:  # TypeError: there is a password
        raise ValueError(f"{path} is no private key in PEM without a password: {error}") from None
    if key.public_key() != owner:
        raise ValueError(f"{path} is not the key of the first certificate in {certificates}")
    layout = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return Identity(_algorithm(key, path), chain, key.private_bytes(*layout))


def _algorithm(key: Any, path: Path) -> str:
    ec, ed25519, rsa = (
        import_module(f"cryptography.hazmat.primitives.asymmetric.{name}") for name in ("ec", "ed25519", "rsa")
    )
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    raise ValueError(f"{path}: C2PA signs with keys of RSA, Ed25519 or the curves P-256, P-384 and P-521")


def sign(data: bytes, identity: Identity, generator: str, version: str | None, source_type: str) -> bytes:
    """Return the file `data` with a signed statement that `generator` made it, with this digital source type."""
    agent = {"name": generator, **({"version": version} if version else {})}
    created = {"action": "c2pa.created", "digitalSourceType": source_type, "softwareAgent": agent}
    manifest = {
        "claim_generator_info": [agent],
        "assertions": [{"label": "c2pa.actions.v2", "data": {"actions": [created]}}],
    }
    signed = io.BytesIO()
    try:
        with _c2pa().Context.from_dict(_SETTINGS) as context, _signer(identity) as signer:
            _c2pa().Builder(manifest, context).sign(signer, _mime(data[:12]), io.BytesIO(data), signed)
    except _c2pa().C2paError as error:
        raise ValueError(f"{os.environ.get(CERTIFICATE)} with {os.environ.get(KEY)} cannot sign: {error}") from None
    return signed.getvalue()


def check_signature(file: BinaryIO, source_type: str) -> Signature | None:
    """Return who signed an open file with C2PA data. None = the library is not installed.

    Raise ProvenanceError if the signature does not fit the content. Certificates are not compared with a list of
    trusted ones.
    """
    if util.find_spec("c2pa") is None:
        return None
    file.seek(0)
    mime = _mime(file.read(12))
    file.seek(0)
    try:
        with _c2pa().Context.from_dict(_SETTINGS) as context, _c2pa().Reader(mime, file, None, context) as reader:
            state, manifest = reader.get_validation_state(), reader.get_active_manifest() or {}
    except _c2pa().C2paError as error:
        raise ProvenanceError(f"its C2PA data cannot be read: {shown(str(error))}") from None
    if state not in _STATES:
        raise ProvenanceError("its C2PA signature does not fit: the file was changed after it was signed")
    info = manifest.get("signature_info") or {}
    signer = info.get("common_name") or info.get("issuer") or "unknown"
    return Signature(str(signer), _ai_program(manifest, source_type))


def _ai_program(manifest: dict[str, Any], source_type: str) -> str | None:
    """Return the program of the first action with this digital source type."""
    for assertion in manifest.get("assertions", []):
        if str(assertion.get("label", "")).startswith("c2pa.actions"):
            for action in assertion["data"].get("actions", []):
                if action.get("digitalSourceType") == source_type:
                    agent = action.get("softwareAgent") or "unknown"
                    return str(agent.get("name", "unknown") if isinstance(agent, dict) else agent)
    return None


def _signer(identity: Identity) -> Any:
    info = _c2pa().C2paSignerInfo(identity.algorithm.encode(), identity.certificates, identity.key, None)
    return _c2pa().Signer.from_info(info)


def _mime(head: bytes) -> str:
    """Return the type of a file by its first 12 bytes."""
    kinds = {
        "image/png": head.startswith(PNG),
        "image/jpeg": head.startswith(JPEG),
        "image/webp": is_webp(head),
        "image/gif": head.startswith(GIF),
        "video/mp4": is_mp4(head),
    }
    return next((kind for kind, fits in kinds.items() if fits), "")


def _c2pa() -> Any:
    return import_module("c2pa")
