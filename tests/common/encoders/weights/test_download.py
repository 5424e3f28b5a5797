"""Published weights: downloaded once and whole, one helpful message without access, no network when offline."""

import hashlib
import importlib
import io
import socket
import threading
import urllib.error
from dataclasses import replace
from http import server as http_server
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants, errors
from safetensors.torch import save_file
from torch import nn

from common import weights as weight_list
from common.base.files import sha256_of_file, write_json
from common.base.runtime import UserError
from common.encoders.config import EncoderConfig, read_encoder_config
from common.encoders.weights.find import find_weights, is_available

# the HTTP library of the installed huggingface_hub
http = importlib.import_module(errors.HTTPError.__module__.partition(".")[0])


def state() -> dict[str, torch.Tensor]:
    return nn.Linear(3, 4).state_dict()


# --- torchvision --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """An empty torch cache, and a download that fails as it does without a network."""

    def refused(*_args, **_options):
        raise urllib.error.URLError("[Errno -2] Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.hub.download_url_to_file", refused)
    return tmp_path / "cache" / "hub" / "checkpoints"


def test_release_without_a_network_says_where_to_get_it_and_where_to_put_it(no_network):
    with pytest.raises(UserError) as error:
        find_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    said = str(error.value)
    assert "download failed" in said
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in said
    assert str(no_network / "resnet50-11ad3fa6.pth") in said
    assert "--weights random" in said


def test_release_in_the_cache_needs_no_network(no_network):
    no_network.mkdir(parents=True)
    torch.save(state(), no_network / "resnet50-11ad3fa6.pth")
    assert find_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2").path == no_network / "resnet50-11ad3fa6.pth"


def test_download_is_checked_against_the_hash_in_its_name(no_network, monkeypatch):
    asked = {}

    def download(url, target, hash_prefix):
        asked.update(url=url, hash_prefix=hash_prefix)
        torch.save(state(), target)

    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    find_weights("torchvision:ResNet50_Weights.IMAGENET1K_V2")
    assert asked == {"url": "https://download.pytorch.org/models/resnet50-11ad3fa6.pth", "hash_prefix": "11ad3fa6"}


@pytest.mark.parametrize("name", ["ResNet50_Weights.NO_SUCH", "NoSuch_Weights.DEFAULT", "nonsense", ""])
def test_unknown_release_is_an_error(no_network, name):
    with pytest.raises(UserError, match="torchvision has no such weights"):
        find_weights(f"torchvision:{name}")


# --- plain addresses ----------------------------------------------------------------------------------------------

ADDRESS = "https://weights.invalid/Someone/Models/resolve/main/teacher.pth?download=true"


def model_config(checkout: Path, folder: str) -> EncoderConfig:
    return read_encoder_config(checkout / "models" / folder / "config.yaml")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache" / "hub" / "checkpoints"


def saved(seed: int = 0) -> bytes:
    """A weight file."""
    torch.manual_seed(seed)
    stream = io.BytesIO()
    torch.save(state(), stream)
    return stream.getvalue()


class Server:
    """A server of this machine: `answers` by path, as (status, announced bytes, content, further headers)."""

    def __init__(self):
        self.answers: dict[str, tuple[int, int | None, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http_server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked.append(self.path)
                status, length, content, headers = outer.answers[self.path]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if length is not None:
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_words):
                pass

        self.http = http_server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def put(self, path: str, content: bytes, *, status: int = 200, announced: int | None = -1, **headers: str) -> str:
        """The address under which `content` is now found."""
        self.answers[path] = (status, len(content) if announced == -1 else announced, content, headers)
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server(cache):
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_address_is_downloaded_once_under_its_own_name(server, cache):
    address = server.put("/main/teacher.pth?download=true", saved())
    source = find_weights(address)
    assert source.path.name == "teacher.pth"
    assert cache in source.path.parents
    assert (source.path.read_bytes(), source.sha256) == (saved(), sha256_of_file(source.path))
    assert find_weights(address) == source
    assert server.asked == ["/main/teacher.pth?download=true"]


def test_two_addresses_that_end_alike_are_two_files(server):
    addresses = [server.put(f"/{name}", saved(seed)) for seed, name in enumerate(("a/w.pth", "b/w.pth", "b/w.pth?v=2"))]
    assert len({find_weights(address).sha256 for address in addresses}) == 3


PAGE = b"<!DOCTYPE html><html><body>Log in</body></html>"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ({"content": saved()[:60], "announced": len(saved())}, "the connection ended after 60 of"),
        ({"content": saved()[:-60], "announced": None}, r"it is cut off"),
        ({"content": PAGE}, r"it is a web page \(HTML\)"),
        ({"content": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}, "git-lfs pointer"),
        ({"content": b""}, "it is empty"),
        ({"content": b"", "status": 404}, "HTTP Error 404"),
        ({"content": PAGE, "status": 503}, "HTTP Error 503"),
        (
            {"content": b"", "status": 302, "Location": "http://weights.invalid/w.pth"},
            "http:// is not protected on its way",
        ),
        ({"content": b"", "status": 302, "Location": "file:///etc/passwd"}, "not allowed|is not protected"),
    ],
    ids=["broken off", "broken off, no length", "page", "lfs", "empty", "404", "503", "to http", "to a file"],
)
def test_an_answer_that_is_no_weight_file_is_one_line_and_leaves_nothing(server, cache, answer, complaint):
    address = server.put("/w.pth", **answer)
    for _ in range(2):  # nothing is taken from the cache the second time
        with pytest.raises(UserError, match=complaint) as error:
            find_weights(address)
        assert "\n" not in str(error.value)
        assert address in str(error.value)
    assert files_in(cache.parent) == []


def test_a_checksum_after_the_address_decides(server, cache):
    address = server.put("/w.pth", saved())
    with pytest.raises(UserError, match=r"SHA-256 [0-9a-f]{64} instead of 00"):
        find_weights(f"{address}#sha256=00")
    assert files_in(cache.parent) == []
    digest = hashlib.sha256(saved()).hexdigest()
    assert find_weights(f"{address}#sha256={digest.upper()}").sha256 == digest


def test_the_checksum_of_a_config_holds_for_its_own_weights(server, checkout):
    own, other = server.put("/own.pth", saved(1)), server.put("/other.pth", saved(2))
    config = replace(model_config(checkout, "SurgVISTA-ViT-B"), weights=own, sha256="00")
    with pytest.raises(UserError, match="instead of 00"):
        find_weights(own, config)
    assert find_weights(other, config).sha256 == hashlib.sha256(saved(2)).hexdigest()


@pytest.mark.parametrize(
    "address",
    [
        "https://weights.invalid/w.pth",
        "https://127.0.0.1:1/w.pth",
        "https://",
        "https://[::1/w.pth",
        "https://a b/w.pth",
    ],
)
def test_every_network_error_is_one_line(cache, address):
    with pytest.raises(UserError, match="cannot be had") as error:
        find_weights(address)
    assert "\n" not in str(error.value)


def test_an_unprotected_address_is_asked_for_with_its_checksum_only(cache):
    with pytest.raises(UserError, match=r"http:// is not protected on its way: give an https:// address"):
        find_weights("http://weights.invalid/w.pth")
    with pytest.raises(UserError, match="URLError"):  # tried
        find_weights("http://weights.invalid/w.pth#sha256=00")


def test_an_address_out_of_reach_says_what_else_works(cache, checkout):
    config = replace(model_config(checkout, "SurgeNet-CAFormer-S18"), named_weights={"small": ADDRESS})
    with pytest.raises(UserError) as error:
        find_weights("small", config)
    for part in ("SurgeNet CAFormer-S18", "resolve/main/teacher.pth", "--weights FILE", "the model card is"):
        assert part in str(error.value)


# --- the Hugging Face hub -----------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """An empty hub cache; `hub(error)` makes every online request fail with `error`."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    calls = []

    def install(error: Exception | None = None, folder: Path | None = None):
        def snapshot_download(repository, *, local_files_only=False, **options):
            calls.append((repository, options.get("revision"), local_files_only))
            if local_files_only and not (folder and len(calls) > 1):
                raise errors.LocalEntryNotFoundError("nothing cached")
            if error:
                raise error
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return calls

    return install


def http_error(kind: type, status: int) -> Exception:
    request = http.Request("GET", "https://huggingface.co/api/models/x")
    return kind(f"{status} Client Error", response=http.Response(status, request=request))


@pytest.mark.parametrize(
    "error",
    [
        http_error(errors.GatedRepoError, 403),
        http_error(errors.RepositoryNotFoundError, 401),
        http_error(errors.HfHubHTTPError, 403),
        http.ConnectError("[Errno -2] Name or service not known"),
        errors.LocalEntryNotFoundError("offline"),
        errors.OfflineModeIsEnabled("offline"),
    ],
    ids=["gated", "401", "403", "no such host", "not found", "offline mode"],
)
def test_without_access_one_message_names_every_way_on(hub, error, checkout):
    hub(error)
    with pytest.raises(UserError) as raised:
        find_weights(model_config(checkout, "DinoV3-ViT-L16").weights, model_config(checkout, "DinoV3-ViT-L16"))
    said = str(raised.value)
    for part in (
        "DINOv3 ViT-L: weights hub:facebook/dinov3-vitl16-pretrain-lvd1689m cannot be had",
        type(error).__name__,
        "https://huggingface.co/facebook/dinov3-vitl16-pretrain-lvd1689m",
        "hf auth login",
        "--weights FOLDER",
        "--weights timm",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("error", "token", "says"),
    [
        (
            http_error(errors.GatedRepoError, 401),
            None,
            "it is gated, and no Hugging Face token is set on this machine: accept",
        ),
        (
            http_error(errors.RepositoryNotFoundError, 401),
            None,
            "it is gated, private or not there, and no Hugging Face token",
        ),
        (
            http_error(errors.RepositoryNotFoundError, 401),
            "hf_old",
            "the Hugging Face token of this machine is wrong or has",
        ),
        (
            http_error(errors.HfHubHTTPError, 401),
            "hf_old",
            "the Hugging Face token of this machine is wrong or has expired",
        ),
        (
            http_error(errors.GatedRepoError, 403),
            "hf_new",
            "the account of this machine's token has no access yet: ask for it",
        ),
    ],
    ids=["no token", "no token, not there", "wrong token", "wrong token for gated", "not granted yet"],
)
def test_a_refusal_says_in_one_sentence_what_is_missing_and_what_works_meanwhile(
    hub, error, token, says, checkout, monkeypatch, capsys
):
    hub(error)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    assert weight_list.main(["prefetch", "DinoV3-ViT-B16"]) == 1
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1
    assert ". " not in said.strip()
    assert says in said
    assert "--weights timm takes the same weights" in said
    assert "the nearest encoder that asks for nothing is --model DinoV2-ViT-B14" in said


def test_one_file_of_a_repository_is_downloaded_and_recorded(hub, tmp_path, monkeypatch):
    file = tmp_path / "models--org--name" / "snapshots" / "0123abc" / "w.pth"
    file.parent.mkdir(parents=True)
    torch.save(state(), file)
    asked = []

    def hf_hub_download(repository, name, *, revision, local_files_only):
        asked.append((repository, name, revision, local_files_only))
        if local_files_only:
            raise errors.LocalEntryNotFoundError("nothing cached")
        return str(file)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    source = find_weights("hub:org/name@v2/w.pth")
    assert asked == [("org/name", "w.pth", "v2", True), ("org/name", "w.pth", "v2", False)]
    expected = {"source": "hub:org/name@v2/w.pth", "file": "w.pth", "revision": "0123abc"}
    assert source.to_json() == expected | {"sha256": sha256_of_file(file)}


def test_a_repository_is_downloaded_at_the_asked_revision_and_recorded(hub, tmp_path):
    folder = tmp_path / "models--org--name" / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    write_json(folder / "config.json", {"model_type": "dinov3_vit"})
    save_file(state(), folder / "model.safetensors")
    calls = hub(folder=folder)
    source = find_weights("hub:org/name@v2")
    assert calls == [("org/name", "v2", True), ("org/name", "v2", False)]
    assert source.folder_config == {"model_type": "dinov3_vit"}
    expected = {"source": "hub:org/name@v2", "file": "model.safetensors", "revision": "0123abc"}
    assert source.to_json() == expected | {"sha256": sha256_of_file(folder / "model.safetensors")}
    find_weights("hub:org/name@v2")
    assert calls[2:] == [("org/name", "v2", True)]  # the cache was enough


def test_a_half_downloaded_repository_is_fetched_again(hub, tmp_path):
    write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"w": "model-00001-of-00001.safetensors"}})
    calls = hub(folder=tmp_path)
    for _ in range(2):
        with pytest.raises(UserError, match="1 of 1 shards are missing"):
            find_weights("hub:org/name")
    assert [local for _, _, local in calls] == [True, False, True, False]


def test_a_malformed_repository_name_says_the_form():
    with pytest.raises(UserError, match=r"expected hub:organisation/name\[@revision\]"):
        find_weights("hub:a/b/c")


# --- offline ------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_sockets(monkeypatch, tmp_path):
    """HF_HUB_OFFLINE, empty caches, and sockets that fail the test."""

    def touched(*_args, **_options):
        raise AssertionError("the network was touched")

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket, "socket", touched)
    monkeypatch.setattr(socket, "getaddrinfo", touched)
    monkeypatch.setattr(socket, "create_connection", touched)


@pytest.mark.parametrize(
    "spec", ["hub:facebook/vjepa2-vitl-fpc64-256", ADDRESS, "torchvision:ResNet50_Weights.IMAGENET1K_V2"]
)
def test_offline_touches_no_network(no_sockets, spec):
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set and it is not in the cache"):
        find_weights(spec)


def test_looking_whether_weights_are_there_touches_no_network(no_sockets, monkeypatch, checkout, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("SICS155_ROOT", str(tmp_path))  # without what `make demo-pretrain` left in the checkout
    found = {
        path.parent.name: is_available(read_encoder_config(path)) for path in checkout.glob("models/*/config.yaml")
    }
    out_of_packages = {"EfficientNet-Lite0", "EfficientNet-Lite1", "EfficientNet-Lite2"}
    assert {name for name, (here, _) in found.items() if here} == {"ColorHistogram"} | out_of_packages
    assert all(isinstance(said, str) and said for _, said in found.values())


# --- the command --------------------------------------------------------------------------------------------------


def test_the_list_shows_licence_size_and_presence_of_every_model(no_sockets, checkout, capsys):
    assert weight_list.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["model", "MB", "here", "licence", "weights"]
    rows = {line.split()[0]: line for line in lines[1:]}
    assert rows.keys() == {path.parent.name for path in checkout.glob("models/*/config.yaml")}
    assert "26864" in rows["DinoV3-ViT-7B16"]
    assert "gated" in rows["DinoV3-ViT-7B16"]
    assert "non-commercial, no derivatives" in rows["SurgVISTA-ViT-B"]
    assert " yes " in rows["EfficientNet-Lite0"]
    assert " no " in rows["Base"]


def test_prefetch_goes_on_after_a_failure_and_says_so(no_sockets, capsys):
    assert weight_list.main(["prefetch", "SurgRec-MAE", "EfficientNet-Lite0", "ColorHistogram"]) == 1
    out = capsys.readouterr().out
    assert "SurgRec-MAE: SurgRec-MAE: weights hub:SichengLu/SurgRec/surgrec_mae.pth cannot be had" in out
    assert "EfficientNet-Lite0: /" in out
    assert "57934424" in out
    assert "ColorHistogram: needs none" in out
    assert weight_list.main(["prefetch", "EfficientNet-Lite0"]) == 0


def test_prefetch_takes_named_weights(no_sockets, capsys):
    assert weight_list.main(["prefetch", "SurgeNet-CAFormer-S18", "Base", "--weights", "cholec"]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert "CHOLEC_checkpoint_epoch0050_teacher.pth cannot be had" in first
    assert second == "Base: has no weights called 'cholec'; its names: none"
