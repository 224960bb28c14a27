"""Pictures of items: of four types, from one folder and from nowhere else, and none where there are none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.serving.conftest import PNG
from tests.serving.server_process import LocalServer, serving_here
from variseq.errors import InputError
from variseq.serving.images import MAX_IMAGE_BYTES, ImageFolder
from variseq.serving.keys import create_key

BEGINNINGS = {
    b"image/jpeg": b"\xff\xd8\xff\xe0",
    b"image/png": PNG,
    b"image/gif": b"GIF89a",
    b"image/webp": b"RIFF\x00\x00\x00\x00WEBPVP8 ",
}
OTHERS = {
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>",
    "html": b"<!doctype html><script>1</script>",
    "bmp": b"BM\x00\x00",
    "wave": b"RIFF\x00\x00\x00\x00WAVEfmt ",
    "late png": b" " + PNG,
    "empty": b"",
}


@pytest.fixture(scope="module")
def served(pictured_run: Path, images: Path) -> Iterator[LocalServer]:
    with serving_here(pictured_run, images=images) as server:
        yield server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `inside` with a picture, links and other files, beside a picture that is outside."""
    root = tmp_path_factory.mktemp("guarded")
    (root / "inside" / "sub").mkdir(parents=True)
    for path in ("outside.png", "inside/good.png", "inside-too.png"):
        (root / path).write_bytes(PNG)
    (root / "inside" / "link.png").symlink_to(root / "outside.png")
    (root / "inside" / "folder").symlink_to(root)
    (root / "inside" / "circle.png").symlink_to("circle.png")
    (root / "inside" / "within.png").symlink_to("good.png")
    os.mkfifo(root / "inside" / "pipe.png")
    return root


@pytest.mark.parametrize("media_type", BEGINNINGS)
def test_picture_has_the_type_of_its_first_bytes_whatever_its_name(media_type: bytes, tmp_path: Path) -> None:
    (tmp_path / "picture.svg").write_bytes(BEGINNINGS[media_type])
    page = ImageFolder(tmp_path).page("picture.svg")
    assert page is not None
    assert (page.media_type, page.body) == (media_type, BEGINNINGS[media_type])


@pytest.mark.parametrize("name", OTHERS)
def test_other_types_are_refused_whatever_their_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(OTHERS[name])
    with pytest.raises(InputError, match="no JPEG, PNG, WebP or GIF"):
        ImageFolder(tmp_path).page("picture.png")


def test_largest_picture_is_served_and_a_larger_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG.ljust(MAX_IMAGE_BYTES, b"\0"))
    assert body_of(tmp_path, "a.png") == PNG.ljust(MAX_IMAGE_BYTES, b"\0")
    (tmp_path / "a.png").write_bytes(PNG.ljust(MAX_IMAGE_BYTES + 1, b"\0"))
    with pytest.raises(InputError, match="more than 4 MB"):
        ImageFolder(tmp_path).page("a.png")


@pytest.mark.parametrize(
    "path",
    ["../outside.png", "sub/../good.png", "sub/../../outside.png", "../inside-too.png", "link.png", "circle.png",
     "folder/outside.png", "pipe.png", "sub", ".", "", "\0", "good.png\0", "x" * 5000, "file:///etc/passwd",
     "https://example.org/a.png", "/etc/passwd"],
)  # fmt: skip
def test_path_that_leads_elsewhere_is_refused(guarded: Path, path: str) -> None:
    with pytest.raises(InputError):
        ImageFolder(guarded / "inside").page(path)


def test_absolute_path_is_refused_even_into_the_folder_and_a_link_within_it_is_followed(guarded: Path) -> None:
    with pytest.raises(InputError):
        ImageFolder(guarded / "inside").page(str(guarded / "inside" / "good.png"))
    assert body_of(guarded / "inside", "within.png") == PNG
    assert body_of(guarded / "inside", "missing.png") is None


@given(st.lists(st.sampled_from(["..", ".", "sub", "folder", "inside", "good.png", "link.png", "/", ""])).map("/".join))
def test_whatever_is_served_lies_below_the_folder(guarded: Path, path: str) -> None:
    try:
        body = body_of(guarded / "inside", path)
    except InputError:
        return
    assert body is None or (guarded / "inside" / path).resolve() == guarded / "inside" / "good.png"


def body_of(folder: Path, path: str) -> bytes | None:
    page = ImageFolder(folder).page(path)
    return None if page is None else page.body


def test_folder_that_is_not_there_is_refused_at_the_start(pictured_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--images"), serving_here(pictured_run, images=tmp_path / "none"):
        pass


def test_picture_comes_back_with_headers_that_keep_it_a_picture(served: LocalServer) -> None:
    response = served.client.get("/v1/items/i03/image")
    assert (response.status_code, response.content) == (200, PNG)
    headers = response.headers
    assert (headers["content-type"], headers["x-content-type-options"]) == ("image/png", "nosniff")
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert headers["cache-control"].startswith("private")
    assert served.client.head("/v1/items/i03/image").headers["content-length"] == str(len(PNG))


def test_picture_that_is_known_by_its_etag_is_not_sent_again(served: LocalServer) -> None:
    etag = served.client.get("/v1/items/i03/image").headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        again = served.client.get("/v1/items/i03/image", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert served.client.get("/v1/items/i03/image", headers={"if-none-match": '"other"'}).content == PNG


@pytest.mark.parametrize(
    "path", ["i09", "i30", "nothing", "..%2fi03", "sub%2fi03.png", "%2fetc%2fpasswd", "i03?path=i04"]
)
def test_item_without_a_picture_is_an_error_of_the_usual_form(served: LocalServer, path: str) -> None:
    item_id, _, query = path.partition("?")
    response = served.client.get(f"/v1/items/{item_id}/image?{query}".rstrip("?"))
    assert response.status_code == (400 if query else 404)
    assert set(response.json()) == {"error"}
    assert "png" not in response.text


def test_model_says_whether_there_are_pictures(
    served: LocalServer, server: LocalServer, bundle_folder: Path, images: Path, tmp_path: Path
) -> None:
    assert served.client.get("/v1/model").json()["has_images"] is True
    assert server.client.get("/v1/model").json()["has_images"] is False
    assert server.client.get("/v1/items/i03/image").status_code == 404
    # The table of items of the following run names no pictures.
    run = Path(shutil.copytree(bundle_folder, tmp_path / "run"))
    with serving_here(run, images=images) as without:
        assert without.client.get("/v1/model").json()["has_images"] is False
        assert without.client.get("/v1/items/i03/image").status_code == 404
        answer = without.client.post("/v1/items", json={"items": [{"item_id": "i03", "image": "sub/i03.png"}]})
        assert answer.json()["not_read"] == ["image"]


def test_picture_needs_a_key_that_may_read(pictured_run: Path, images: Path, tmp_path: Path) -> None:
    keys = {role: create_key(tmp_path / "keys.yaml", role, [role]) for role in ("read", "write")}
    with serving_here(pictured_run, images=images, keys=tmp_path / "keys.yaml") as server:

        def status(**headers: str) -> int:
            return server.client.get("/v1/items/i03/image", headers=headers).status_code

        assert status() == 401
        assert status(authorization=f"Bearer {keys['write']}") == 403
        assert status(authorization=f"Bearer {keys['read']}") == 200


def test_added_and_updated_items_have_pictures_and_removed_ones_none(
    pictured_run: Path, images: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(pictured_run, tmp_path / "run"))
    with serving_here(run, images=images) as server:
        given = [
            {"item_id": "n1", "title": "New toy", "image": "sub/i01.png"},
            {"item_id": "i09", "image": "sub/i01.png"},
            {"item_id": "n2", "image": "../images/sub/i01.png"},
        ]
        answer = server.client.post("/v1/items", json={"items": given}).json()
        assert (answer["added"], answer["updated"], answer["not_read"]) == (2, 1, [])
        assert [server.client.get(f"/v1/items/{one}/image").status_code for one in ("n1", "i09", "n2")] == [
            200,
            200,
            404,
        ]
        assert server.client.post("/v1/items", json={"items": given}).json()["unchanged"] == 3
        assert server.client.request("DELETE", "/v1/items", json={"item_ids": ["n1"]}).status_code == 200
        assert server.client.get("/v1/items/n1/image").status_code == 404
        assert server.client.get("/v1/items/i03/image").status_code == 200


def test_map_has_clusters_of_content_with_a_central_item_each(server: LocalServer) -> None:
    found = server.client.get("/v1/items/map").json()
    clusters = {one["cluster"] for one in found["items"]}
    assert clusters <= {None, *range(len(found["clusters"]))}
    for number, title in enumerate(found["clusters"]):
        assert title in {one["title"] for one in found["items"] if one["cluster"] == number}
