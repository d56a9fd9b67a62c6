"""One process of the server over a deployment, as an agent and a client use it."""

from typing import Any, Literal

from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval_form import APPROVE, PendingApproval, SubmittedForm, form_text
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.key_files import KeyFileWriter, SecretValues
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import NO_RULES
from fastn_mcp.procedures.catalog import TOOLS, parse
from support.decisions import Killed
from support.guard_machine.deployment import ACCOUNT_NAME, Deployment, SkewedClock
from support.guard_machine.people import ClientForm, OutOfBandChannel, submitted_response
from support.guard_machine.records import CURRENT_CALL, AgentAnswer, AgentCall, FormAnswer
from support.guard_machine.steps import ProcessSteps, SteppedAuditFile, SteppedLedger, SteppedStore
from support.guard_machine.vocabulary import ISSUER, PolicyCase
from support.guard_machine.wire import FastnWire
from support.policy_files import rules_of
from support.world import OPENED, World

Form = FormAnswer | Literal["later"] | None
"""What the client's form brings; `later` if it brings nothing yet, None if the client shows no forms."""


def asker_of(principal: str, tenant: str) -> Asker:
    """Return a person who signed in, with the client that they use."""
    name = principal.removeprefix(ISSUER)
    login_names = (name, f"{name}@example.com")
    return Asker(
        principal,
        person=f"{name.title()} Example",
        login_names=login_names,
        groups=(),
        tenant=tenant,
        client="client",
        client_name="Agent",
    )


class GuardProcess:
    """One process of the server. After a kill another one takes its place."""

    def __init__(self, deployment: Deployment, name: str, policy: PolicyCase, *, skew: float = 0.0) -> None:
        """`name` is of this process and of no other, before or after it. Its clock is ahead by `skew` seconds."""
        self.name = name
        self.policy = policy
        self.skew = skew
        store = deployment.open_store()
        self._steps = ProcessSteps(deployment, store)
        self._deployment = deployment
        self._inner_ledger = Ledger(SteppedStore(store, self._steps))
        ledger: Any = SteppedLedger(self._inner_ledger, self._steps)
        folder = deployment.folder
        rules = rules_of(folder, policy.rules) if policy.rules else NO_RULES
        self.world = World(
            folder,
            Policy(policy.mode, rules, approval_wait=policy.approval_wait),
            clock=SkewedClock(deployment.clock, skew),
            tokens=f"{name}-",
            ledger=ledger,
            exchange=lambda _: FastnWire(deployment, self._steps, name),
            sandbox=deployment.sandbox,
        )
        OPENED.discard(self.world)  # it is closed here, and not by a fixture
        self.world.audit.close()
        self.world.audit = SteppedAuditFile(deployment.audit_path, self.world.system, self._steps)
        self.world.recorder = Recorder(self.world.audit, ACCOUNT_NAME, self.world.system)
        self.world.desk = OutOfBandChannel()
        self.world.dispatch = self.world.dispatching(SecretValues({}, []), KeyFileWriter(folder / "keys"))

    @property
    def is_dead(self) -> bool:
        """Whether it was killed."""
        return self._steps.is_dead

    async def call(self, call: AgentCall, tenant: str, form: Form) -> AgentAnswer:
        """Have an agent call a tool."""
        token = CURRENT_CALL.set(call)
        try:
            with call.scope:
                return await self._answer(call, tenant, form)
            return AgentAnswer("cancelled")
        except (Killed, BaseExceptionGroup):
            if not self.is_dead:
                raise
            return AgentAnswer("killed")
        finally:
            CURRENT_CALL.reset(token)

    async def _answer(self, call: AgentCall, tenant: str, form: Form) -> AgentAnswer:
        channel = None
        submitted = None
        if form is not None:
            channel = ClientForm(self._deployment, None if form == "later" else form)
        if isinstance(form, FormAnswer) and form.approval_id is not None:
            asked = await self.world.ledger.find(form.approval_id)
            response = ("accept", {"decision": APPROVE}) if asked is None else submitted_response(form.choice, asked)
            submitted = SubmittedForm(form.approval_id, *response)
        caller = Caller(asker_of(call.principal, tenant), channel, call.scopes, submitted)
        try:
            tool: Any = parse(TOOLS, call.tool, dict(call.arguments)).call
            outcome = await self.world.dispatch(tool, caller)
        except FastnError as error:
            return AgentAnswer(error.outcome, str(error), error.data())
        match outcome:
            case Done(result):
                return AgentAnswer("done", data=result.model_dump())
            case PendingApproval(request) if not request.out_of_band:
                return AgentAnswer("form", form_text(request), approval_id=request.id)
            case PendingApproval(request):
                return AgentAnswer("approval_required", outcome.where, approval_id=request.id)

    async def aclose(self) -> None:
        await self._inner_ledger.aclose()
        await self.world.client.aclose()
        self.world.audit.close()
