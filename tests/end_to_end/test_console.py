"""The console in a browser, before a real server with two versions of a model."""

import base64
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from export.locations import open_store
from export.versions import Versions, not_running
from tests.publishable import Publishable
from tests.running import REPOSITORY, ROOT, Server, images_input, running

_PICTURE = ROOT / "examples" / "seven.png"
_SEEN_MS = 20_000
# Of the documentation: copied from here when the page changes.
_PICTURES = ROOT / "build" / "console"

_CONTROL = 'button, input, select, [tabindex="0"]'
_CONTROLS = f"[...document.querySelectorAll('{_CONTROL}')].filter((each) => !each.hidden).map((each) => each.tagName)"
_FOCUSED = f"""() => {{
    const style = getComputedStyle(document.activeElement);
    const controls = [...document.querySelectorAll('{_CONTROL}')].filter((each) => !each.hidden);
    return [controls.indexOf(document.activeElement), `${{style.outlineStyle}} ${{style.outlineWidth}}`];
}}"""


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory, digits_once: Publishable) -> Iterator[Server]:
    """The demo model twice over, behind two workers."""
    repository = shutil.copytree(REPOSITORY, tmp_path_factory.mktemp("console") / "models")
    digits_once.publish(repository)
    Versions(open_store(str(repository)), "digits").serve([1, 2], not_running)
    with running(tmp_path_factory.mktemp("state"), WORKERS="2", MODEL_REPOSITORY=str(repository)) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "Debian's package chromium is not installed"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, two_versions: Server) -> Iterator[Page]:
    """The console in a tab of its own; what the browser complains of fails the test, but for answers that are errors."""
    context = browser.new_context()
    complaints: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"http://{two_versions.http}/console")
    yield page
    context.close()
    assert [each for each in complaints if not each.startswith("Failed to load resource")] == []


def _enter(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Models")).to_be_visible()


def _call(server: Server, times: int) -> None:
    """Ask `digits` something new, then the same again, over and over."""
    with triton.InferenceServerClient(server.grpc) as client:
        for seed in range(times):
            image = np.random.default_rng(seed // 2).integers(0, 256, (1, 32, 32, 3), np.uint8)
            client.infer("digits", images_input(image), headers=server.headers)


def _drop(page: Page) -> None:
    """A picture, and a file that is none."""
    content = base64.b64encode(_PICTURE.read_bytes()).decode()
    dropped = page.evaluate_handle(
        """async (content) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            transfer.items.add(new File([bytes], "seven.png", { type: "image/png" }));
            transfer.items.add(new File(["no picture"], "words.png", { type: "image/png" }));
            return transfer;
        }""",
        content,
    )
    page.get_by_text("Drop images here").dispatch_event("drop", {"dataTransfer": dropped})
    expect(page.get_by_role("status").filter(has_text="2 classified: 7")).to_be_visible()


def _answering(server: Server) -> str:
    """The version that a photograph gets, as a new connection finds it."""
    url = f"http://{server.http}/v1/models/digits/classify"
    answer = httpx.post(url, content=_PICTURE.read_bytes(), headers=server.headers)
    return str(answer.json()["version"])


def test_the_figures_move(page: Page, two_versions: Server) -> None:
    _enter(page, two_versions.key)
    card = page.get_by_role("article", name="digits", exact=True)
    rate = card.get_by_role("definition").first
    expect(rate).to_have_text("0")
    _call(two_versions, 20)
    expect(rate).not_to_have_text("0", timeout=_SEEN_MS)
    expect(card.get_by_role("definition").nth(2)).to_have_text(re.compile(r"^\d.* ms$"))
    expect(card.get_by_role("figure", name="batches by size")).to_contain_text("100 %")
    expect(card.get_by_role("figure", name="Who answered")).to_contain_text("in the worker's memory")
    expect(card.get_by_role("img", name=re.compile("^Latency, now p50"))).to_be_visible()
    expect(page.get_by_role("group", name="Replicas").get_by_role("row")).to_have_count(2)
    expect(page.get_by_role("group", name="Replicas")).to_contain_text("good")
    expect(page.get_by_role("group", name="Tenants")).to_contain_text("without a tenant")
    used = page.get_by_role("group", name="Keys").get_by_role("row", name=re.compile("^development "))
    expect(used.get_by_role("cell").first).not_to_have_text("0")
    made = sum(key["calls"] for key in _live(two_versions, two_versions.key)["keys"] if key["key"] != "_none")
    assert made >= 20


def test_a_dropped_image_is_classified_and_shows_where_the_time_went(page: Page, two_versions: Server) -> None:
    _enter(page, two_versions.key)
    _drop(page)
    seven, words = page.get_by_role("listitem").filter(has=page.get_by_role("heading", level=3)).all()
    expect(seven.get_by_role("row").nth(1)).to_contain_text("7")
    for stage in ("auth", "read", "limit", "upstream", "serialise", "way"):
        expect(seven.get_by_role("figure")).to_contain_text(re.compile(rf"{stage} [\d.]+ ms"))
    expect(words).to_contain_text("image")


def test_a_version_is_promoted_and_rolled_back_by_keyboard(page: Page, two_versions: Server) -> None:
    assert _answering(two_versions) == "2"
    _enter(page, two_versions.key)
    card = page.get_by_role("article", name="digits", exact=True)
    first = card.get_by_role("row", name=re.compile("^1 "))
    card.get_by_role("button", name="Promote version 1 of digits").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="digits 1 answers all calls")).to_be_visible()
    expect(first).to_contain_text("stable")
    expect(first).to_contain_text("100%")
    expect(card.get_by_role("heading", name="Versions")).to_be_focused()
    _poll(lambda: _answering(two_versions) == "1")
    card.get_by_role("button", name="Try on 10 % version 2 of digits").press("Enter")
    expect(card.get_by_role("row", name=re.compile("^2 .*canary"))).to_contain_text("10%")
    card.get_by_role("button", name="Roll digits back to version 1").press("Enter")
    expect(card.get_by_role("row", name=re.compile("^2 "))).to_contain_text("0%")
    card.get_by_role("button", name="Roll digits back to version 2").press("Enter")
    expect(card.get_by_role("row", name=re.compile("^2 stable 100%"))).to_be_visible()
    _poll(lambda: _answering(two_versions) == "2")


def test_a_read_key_sees_its_models_and_no_buttons(page: Page, two_versions: Server) -> None:
    created = two_versions.command("keys", "create", "watcher", "--scope", "read", "--model", "cats")
    _enter(page, created.stdout.strip())
    expect(page.get_by_text("No model is ready.")).to_be_visible()
    expect(page.get_by_text("All keys are shown to who has the scope admin.")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Promote"))).to_have_count(0)
    expect(page.get_by_role("group", name="Replicas")).not_to_contain_text("127.0.0.1")


def test_a_wrong_key_is_said_to_be_wrong_and_is_not_kept(page: Page) -> None:
    page.get_by_label("API key").fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("malformed")
    expect(page.get_by_label("API key")).to_be_focused()
    assert page.evaluate("sessionStorage.length + localStorage.length + document.cookie.length") == 0


def test_a_forgotten_key_is_gone(page: Page, two_versions: Server) -> None:
    _enter(page, two_versions.key)
    expect(page.get_by_role("heading", name="Tidegate")).to_be_focused()
    page.reload()
    page.get_by_role("button", name="Forget the key").click()
    expect(page.get_by_label("API key")).to_be_visible()
    assert page.evaluate("sessionStorage.length + localStorage.length") == 0


@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_each_control_has_a_name(
    page: Page, two_versions: Server, width: int, scheme: Literal["light", "dark"]
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    _enter(page, two_versions.key)
    expect(page.get_by_role("article")).to_have_count(2)
    _call(two_versions, 20)
    _drop(page)
    expect(page.get_by_role("figure", name="batches by size").first).to_be_visible(timeout=_SEEN_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red = page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])")
    assert (red > 128) == (scheme == "light")
    for control in page.locator("button, input, select").all():
        expect(control).to_have_accessible_name(re.compile(r"\w"))
    _is_accessible(page)
    page.screenshot(path=_PICTURES / f"console-{width}-{scheme}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_who_has_no_key_can_read_what_is_asked(page: Page, scheme: Literal["light", "dark"]) -> None:
    page.emulate_media(color_scheme=scheme)
    page.get_by_label("API key").fill("nonsense")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("malformed")
    _is_accessible(page)


def test_the_keyboard_comes_to_each_control_in_order_and_shows_where_it_is(page: Page, two_versions: Server) -> None:
    _enter(page, two_versions.key)
    expect(page.get_by_role("article")).to_have_count(2)
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.get_by_role("button", name="Promote version 1 of digits")).to_be_visible()
    page.get_by_role("heading", name="Tidegate").focus()
    controls = page.evaluate(_CONTROLS)
    assert {"BUTTON", "INPUT", "SELECT", "DIV"} == set(controls)
    came = []
    for _ in controls:
        page.keyboard.press("Tab")
        place, outline = page.evaluate(_FOCUSED)
        assert outline == "solid 3px"
        came.append(place)
    assert came == list(range(len(controls)))


def test_nothing_of_the_page_comes_from_elsewhere(two_versions: Server) -> None:
    with httpx.Client(base_url=f"http://{two_versions.http}") as client:
        page = client.get("/console")
        parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(parts) == 3
        for answer in (page, *(client.get(f"/{part}") for part in parts)):
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert (
                policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'") and "unsafe" not in policy
            )
            assert client.get(answer.url, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
        assert client.get("/console/keys.db").status_code == 404


def test_live_figures_need_a_key_and_show_what_it_may_see(two_versions: Server) -> None:
    def create(*options: str) -> str:
        return two_versions.command("keys", "create", "reader", *options).stdout.strip()

    url = f"http://{two_versions.http}/admin/v1/live"
    assert httpx.get(url).status_code == 401
    forbidden = httpx.get(url, headers={"authorization": f"Bearer {create('--scope', 'infer')}"})
    assert forbidden.status_code == 403
    everything = _live(two_versions, create("--scope", "admin"))
    assert {"digits", "digits_encoded"} <= {model["model"] for model in everything["models"]}
    assert everything["replicas"][0]["address"]
    reader = create("--scope", "read", "--scope", "infer", "--model", "digits")
    url = f"http://{two_versions.http}/v1/models/digits/classify"
    asked = httpx.post(url, content=_PICTURE.read_bytes(), headers={"authorization": f"Bearer {reader}"})
    assert asked.status_code == 200
    _poll(lambda: _live(two_versions, reader)["keys"] != [])
    less = _live(two_versions, reader)
    assert {model["model"] for model in less["models"]} == {"digits", "digits_encoded"}
    assert (less["tenants"], less["replicas"][0]["address"]) == ([], "")
    assert less["keys"] == [{"key": reader.split("_")[1], "calls": 1, "failed": 0, "images": 1}]


def _live(server: Server, key: str) -> Any:
    return httpx.get(f"http://{server.http}/admin/v1/live", headers={"authorization": f"Bearer {key}"}).json()


def _is_accessible(page: Page) -> None:
    """By axe-core: contrast, names, roles, order of headings, and what else it knows."""
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    unsure = [each for each in found.response["incomplete"] if each["id"] == "color-contrast"]
    assert unsure == []


def _poll(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
