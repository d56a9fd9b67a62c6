"""Who approves the calls that people of a team ask for: by default they do not approve what deletes or changes
access."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.approval_world import ACME_WITH_POLICY, APPROVERS, PAGE, ApprovalWorld, serving
from support.team_world import ACME, ALL, HEAD, META, TENANTS, Caller, TeamWorld, modern, reply_of, request, tenant

from fastn_mcp.runtime import System

OPENS_URLS: dict[str, Any] = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}}
OTHERS = "Somebody other than the requester has to approve it"


@dataclass(frozen=True)
class Example:
    tool: str
    listing: str
    argument: str
    arguments: Mapping[str, Any]

    async def arguments_at(self, caller: Caller, token: str) -> dict[str, Any]:
        if not self.listing:
            return dict(self.arguments)
        rows = (await caller.result(token, self.listing))["data"]
        return {**self.arguments, self.argument: rows[0]["id"]}


DESTROY = Example("delete_customer", "list_customers", "customer_id", {})
ACCESS = Example("create_role", "", "", {"name": "Auditor", "permissions": ["audit:read"]})
TRASH = Example("delete_workflow", "list_workflows", "workflow_id", {})
EXTERNAL = Example("run_workflow", "list_workflows", "workflow_id", {})

WITH_PAGE = PAGE + APPROVERS
OWN = "[approvals]\nown = {}\n"


async def asks(folder: Path, text: str, example: Example) -> dict[str, Any]:
    """Return the result of a call in a client that shows forms."""
    environment = {
        "ACME_KEY": "fsk_test_acme",
        "GLOBEX_KEY": "g",
        "PAGE_SECRET": "egap",
        "FASTN_STATE_SECRET": "s" * 32,
    }
    team = TeamWorld(folder, HEAD + text, environment=environment)
    async with team.served() as caller:
        token = team.provider.token(sub="anna", scope=ALL)
        arguments = await example.arguments_at(caller, token)
        return reply_of(await caller.call(token, example.tool, **arguments))["result"]


def is_form(result: Mapping[str, Any]) -> bool:
    return result.get("resultType") == "input_required"


@pytest.mark.parametrize("text", ["", WITH_PAGE], ids=["without a page", "with a page"])
@pytest.mark.parametrize("example", [DESTROY, ACCESS], ids=["destroy", "access"])
async def test_requester_gets_no_form_for_a_deletion_or_a_change_of_access(
    tmp_path: Path, text: str, example: Example
) -> None:
    result = await asks(tmp_path, text + TENANTS, example)
    assert not is_form(result)
    answer = result["structuredContent"]
    assert answer["status"] == "approval_required"
    assert OTHERS in answer["message"]
    assert ("where approvers sign in" if text else "at a terminal on the server") in answer["message"]


@pytest.mark.parametrize("text", ["", WITH_PAGE], ids=["without a page", "with a page"])
@pytest.mark.parametrize("example", [TRASH, EXTERNAL], ids=["trash", "external"])
async def test_requester_gets_a_form_for_other_calls(tmp_path: Path, text: str, example: Example) -> None:
    assert is_form(await asks(tmp_path, text + TENANTS, example))


@dataclass(frozen=True)
class Own:
    value: str
    example: Example
    is_form: bool


OWN_CASES = {
    "all": Own("true", DESTROY, True),
    "all, access": Own("true", ACCESS, True),
    "none": Own("false", EXTERNAL, False),
    "named": Own('["destroy"]', DESTROY, True),
    "not named": Own('["destroy"]', EXTERNAL, False),
    "one text": Own('"DESTROY"', DESTROY, True),
}


@pytest.mark.parametrize("case", OWN_CASES.values(), ids=OWN_CASES)
async def test_team_file_says_which_calls_of_their_own_people_approve(tmp_path: Path, case: Own) -> None:
    assert is_form(await asks(tmp_path, OWN.format(case.value) + TENANTS, case.example)) is case.is_form


async def test_caller_with_a_key_of_their_own_approves_own_deletions(tmp_path: Path) -> None:
    team = TeamWorld(tmp_path, HEAD + tenant("own", claims={"tier": "own"}, caller_keys=True, mode="guarded"))
    async with team.served() as caller:
        token = team.provider.token(sub="olga", tier="own", scope=ALL)
        key = "fsk_test_olga"
        rows = reply_of(await caller.call(token, "list_customers", key))["result"]["structuredContent"]["data"]
        asked = reply_of(await caller.call(token, "delete_customer", key, customer_id=rows[0]["id"]))
        assert is_form(asked["result"])


async def test_batch_with_a_change_of_access_gets_no_form(tmp_path: Path) -> None:
    """The most severe effect of the batch is TRASH, which people may approve themselves."""
    team = TeamWorld(tmp_path, HEAD + TENANTS)
    async with team.served() as caller:
        token = team.provider.token(sub="anna", scope=ALL)
        trash = {"tool": TRASH.tool, "arguments": await TRASH.arguments_at(caller, token)}
        access = {"tool": ACCESS.tool, "arguments": dict(ACCESS.arguments)}
        for calls, has_form in (([trash], True), ([trash, access], False)):
            result = reply_of(await caller.call(token, "apply_changes", changes=calls))["result"]
            assert is_form(result) is has_form, result
        assert OTHERS in result["structuredContent"]["message"]


async def test_answer_to_a_form_counts_only_while_the_team_file_allows_it(tmp_path: Path) -> None:
    """The form was shown before a restart with another team file."""
    waited = [timedelta()]
    system = System(lambda: datetime.now(UTC) + waited[0])
    environment = {"ACME_KEY": "fsk_test_acme", "GLOBEX_KEY": "g", "FASTN_STATE_SECRET": "s" * 32}
    before, after = (
        TeamWorld(tmp_path, HEAD + OWN.format(own) + TENANTS, environment=dict(environment), system=system)
        for own in ("true", '["EXTERNAL"]')
    )
    token = before.provider.token(sub="anna", scope=ALL)
    async with before.served() as caller:
        target = await DESTROY.arguments_at(caller, token)
        asked = reply_of(await caller.call(token, DESTROY.tool, **target))["result"]
    waited[0] = timedelta(seconds=5)
    answers = {form: {"action": "accept", "content": {"decision": "approve"}} for form in asked["inputRequests"]}
    body = request(DESTROY.tool, target, inputResponses=answers, requestState=asked["requestState"])
    async with after.served() as caller:
        result = reply_of(await caller.ask(token, body, **modern(DESTROY.tool)))["result"]["structuredContent"]
        assert (result["status"], OTHERS in result["message"]) == ("approval_required", True)


NOBODY = {
    "no approver": PAGE,
    "approvers of other effects": f'{PAGE}{APPROVERS}effects = ["WRITE", "EXTERNAL"]\n',
    "approvers of another tenant": f'{PAGE}{APPROVERS}tenants = ["globex"]\n',
    "the requester alone": f'{PAGE}[[approvals.approver]]\nsubjects = ["anna"]\n',
}


@pytest.mark.parametrize("text", NOBODY.values(), ids=NOBODY)
async def test_call_that_nobody_else_may_approve_is_refused_at_once(tmp_path: Path, text: str) -> None:
    refused = (await asks(tmp_path, text + TENANTS, DESTROY))["structuredContent"]
    assert refused["outcome"] == "refused"
    assert "no approver in the team file covers the tenant acme and the effect destroy" in refused["message"]
    assert "`own` in [approvals] has to name destroy (own = true names all)" in refused["next"]


async def test_requester_is_not_led_to_the_page_for_what_others_approve(tmp_path: Path) -> None:
    async with serving(tmp_path, HEAD + WITH_PAGE + ACME_WITH_POLICY) as world:
        waits = await world.delete(meta=OPENS_URLS)
        assert (waits["status"], OTHERS in waits["message"]) == ("approval_required", True)
        secret = await world.call("create_secret", OPENS_URLS, name="STRIPE_KEY")
        assert (secret["status"], OTHERS in secret["message"]) == ("approval_required", True)


async def test_preview_says_that_somebody_else_has_to_approve(tmp_path: Path) -> None:
    async with serving(tmp_path, HEAD + WITH_PAGE + ACME_WITH_POLICY) as world:
        shown = [await world.call(each.tool, dry_run=True, **await _of(world, each)) for each in (ACCESS, TRASH)]
        assert [each["preview"]["approval"] for each in shown] == [
            "somebody else has to approve it",
            "a person has to approve it",
        ]


async def _of(world: ApprovalWorld, example: Example) -> dict[str, Any]:
    return await example.arguments_at(world.caller, world.team.provider.token(sub="anna", scope=ALL))


async def test_requester_approves_a_run_of_their_own_on_the_page(tmp_path: Path) -> None:
    async with serving(tmp_path, HEAD + WITH_PAGE + ACME_WITH_POLICY) as world:
        target = await _of(world, EXTERNAL)
        assert (await world.call(EXTERNAL.tool, **target))["status"] == "approval_required"
        async with world.browser("anna") as anna:
            assert (await anna.approve()).status_code == 303
        (approved,) = world.audit("approved")
        assert approved["approver"] == approved["principal"] == f"{world.team.team.issuer}|anna"


async def test_approver_does_not_approve_a_deletion_that_they_asked_for(tmp_path: Path) -> None:
    """Not in the form, which they would answer, and not on the page, whose rule covers the calls of others."""
    async with serving(tmp_path, HEAD + WITH_PAGE + ACME_WITH_POLICY) as world:
        waits = await world.delete(by="amir", meta=META)
        assert OTHERS in waits["message"]
        async with world.browser("amir") as amir:
            fields = await amir.form("decline")
            assert (await amir.send("approve", fields | {"extent": "once"})).status_code == 403
        assert (world.audit("approved"), ACME["subjects"]) == ([], ["anna", "amir"])
