"""The explorer's JSON API and its page: a FastAPI application over open runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Query
from fastapi import Path as InPath
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from torch import Tensor

from monge._core.version import __version__
from monge.config import CUSTOM
from monge.data import IMAGE, as_floats
from monge.labels import Rows, unlabelled
from monge.models.protocols import Completer, clusters_of
from monge.show.explore import history, schemas
from monge.show.explore.access import Access
from monge.show.explore.connections import quiet
from monge.show.explore.refusals import (
    HANDLERS,
    REFUSALS,
    Refusal,
    only_known_parameters,
)
from monge.show.explore.schemas import Pick, Samples, read_values
from monge.show.explore.service import Explorer, PlaneName
from monge.show.explore.shield import Shield
from monge.show.explore.uploads import FORMATS, UploadDecoder
from monge.show.explore.worker import Full, Worker

JOB_SECONDS = 30.0
STATIC = Path(__file__).with_name("static")
FILE = {
    "requestBody": {
        "required": True,
        "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in FORMATS},
    }
}

T = TypeVar("T")
api = APIRouter(prefix="/api", dependencies=[Depends(only_known_parameters)])


class Site:
    """The open runs by identifier, with a thread that computes for them.

    Uploads are decoded by another thread and process, so that other requests need not wait.
    """

    def __init__(self, explorers: dict[str, Explorer]):
        self.explorers, self.worker = explorers, Worker()
        self.reader, self.decoder = Worker(most=8), UploadDecoder()

    def close(self) -> None:
        """Ends the threads and the process."""
        self.worker.close()
        self.reader.close()
        self.decoder.close()


def identified(
    request: HttpRequest, run: Annotated[str, InPath(pattern="^[a-z0-9][a-z0-9-]{0,99}$")]
) -> Explorer:
    """The open run with an identifier."""
    explorers = request.app.state.site.explorers
    if run not in explorers:
        raise Refusal(404, "not_found", f"there is no run {run!r}")
    return explorers[run]


ExplorerDependency = Annotated[Explorer, Depends(identified)]


class Submit:
    """Submits jobs of a run for a view of a page; a newer request of a view replaces one that
    waits."""

    def __init__(
        self,
        request: HttpRequest,
        explorer: ExplorerDependency,
        x_view: Annotated[str, Header(pattern="^[A-Za-z0-9/_.-]{0,64}$")] = "",
    ):
        self.worker, self.run = request.app.state.site.worker, explorer.run
        # a request without a view replaces no other
        self.view = x_view or object()

    async def __call__(self, job: Callable[[], T], worker: Worker | None = None) -> T:
        """Its result; its ValueError becomes a refusal."""

        def job_of_run() -> T:
            with self.run.defaults():
                return job()

        try:
            future = (worker or self.worker).submit(self.view, job_of_run)
        except Full:
            raise Refusal(503, "busy", "too many requests wait: try again") from None
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), JOB_SECONDS)
        except ValueError as error:
            raise Refusal(422, "bad_argument", history.without_folders(str(error))) from None
        except TimeoutError:
            raise Refusal(503, "busy", f"no answer within {JOB_SECONDS:g} s") from None
        except asyncio.CancelledError:
            if not future.cancelled():
                raise
            raise Refusal(409, "superseded", "a newer request took its place") from None


SubmitDependency = Annotated[Submit, Depends()]


def picked(explorer: Explorer, pick: Pick, name: str) -> Rows:
    r"""The sample that a request means, (1, \*), with its class for a class-conditional run."""
    if (pick.index is None) == (pick.data is None):
        raise ValueError(f"`{name}` needs either an index or data")
    label = pick.label
    if pick.index is not None:
        x, labels = explorer.test([pick.index]), explorer.test_labels
        if label is None and labels is not None and explorer.classes is not None:
            label = int(labels[pick.index])
    else:
        assert pick.data is not None
        x = read_values(pick.data, explorer.kind, explorer.source.shape, name)
        if label is None and (clusters := clusters_of(explorer.model)) is not None:
            label = int(clusters(x))
    return explorer.rows(x, label)


def described(identifier: str, explorer: Explorer) -> schemas.RunInfo:
    """The description of a run with which the page starts."""
    with explorer.run.defaults():
        latent = explorer.latent  # which a first sample tells
    run, source, prior = explorer.run, explorer.source, explorer.prior
    name = None if prior is None else run.config.prior
    if prior is not None and run.config.recipe == CUSTOM:
        name = type(prior).__name__
    known = None
    if isinstance(explorer.model, Completer):
        known = Path(getattr(run.config.options, "known", "mask")).stem
    values = {
        "id": identifier,
        "name": run.name,
        "recipe": run.config.recipe,
        "line": run.line,
        "kind": explorer.kind.view,
        "shape": source.shape,
        "latent": latent,
        "prior": name,
        "views": explorer.views,
        "data": source.name,
        "train": len(source.train),
        "test": len(source.test),
        "classes": explorer.names,
        "conditional": explorer.classes is not None,
        "guidance": explorer.guidance,
        "known": known,
        "checkpoint": explorer.checkpoint,
    }
    return schemas.RunInfo.model_validate(values)


def site(
    explorers: dict[str, Explorer], hosts: list[str], access: Access, framed: bool = False
) -> Shield:
    """The application: the page at /, the API under /api, both behind the shield.

    Args:
        explorers: the open runs by identifier.
        hosts: what the Host header may say, see `addresses.hosts`.
        access: who may ask.
        framed: whether a notebook on this machine may show the page.
    """
    opened = Site(explorers)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(quiet)
        yield
        opened.close()

    app = FastAPI(
        lifespan=lifespan,
        title="monge explorer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=REFUSALS,
        exception_handlers=HANDLERS,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.site = opened
    app.include_router(api)
    app.add_api_route("/", page, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC))
    return Shield(app, hosts, access, framed)


def page() -> FileResponse:
    """The page."""
    return FileResponse(STATIC / "index.html")


@api.get("/runs")
async def list_runs(request: HttpRequest) -> list[schemas.RunInfo]:
    """The open runs."""
    return [described(*item) for item in request.app.state.site.explorers.items()]


@api.get("/runs/{run}/progress")
def get_progress(explorer: ExplorerDependency) -> schemas.ProgressReply:
    """Curves, evaluation and configuration, as the run's directory has them now."""
    try:
        return history.read(explorer.run)
    except ValueError as error:
        message = history.without_folders(str(error))
        raise Refusal(409, "unreadable", message) from None


@api.post("/runs/{run}/reload")
async def reload(
    explorer: ExplorerDependency, run: str, submit: SubmitDependency, request: HttpRequest
) -> schemas.RunInfo:
    """Loads the newest checkpoint."""
    explorers = request.app.state.site.explorers

    def job() -> schemas.RunInfo:
        explorers[run] = Explorer(explorer.run.fresh())
        return described(run, explorers[run])

    return await submit(job)


@api.get("/runs/{run}/test")
async def get_test(
    explorer: ExplorerDependency,
    submit: SubmitDependency,
    first: Annotated[int, Query(ge=0, le=2**31)] = 0,
    count: Annotated[int, Query(ge=1, le=100)] = 1,
) -> schemas.TestPart:
    """`count` samples of the test part in a row, fewer at its end."""

    def job() -> schemas.TestPart:
        index = list(range(first, min(first + count, len(explorer.source.test)))) or [first]
        x, labels = explorer.test(index), explorer.test_labels
        shown = None if labels is None else labels[index].tolist()
        return schemas.TestPart(index=index, labels=shown, samples=Samples.of(x, explorer.kind))

    return await submit(job)


@api.get("/runs/{run}/map/{plane}")
async def get_map(
    explorer: ExplorerDependency, submit: SubmitDependency, plane: PlaneName
) -> schemas.PlaneMap:
    """Codes of test samples over the prior, in the plane of their principal directions or in the
    plane in which they differ most from the prior."""
    return await submit(lambda: map_of(explorer, plane))


@api.get("/runs/{run}/directions")
async def get_directions(explorer: ExplorerDependency, submit: SubmitDependency) -> schemas.Axes:
    """The principal directions of the codes."""

    def job() -> schemas.Axes:
        mean, directions, deviations = (part.tolist() for part in explorer.directions)
        return schemas.Axes(mean=mean, directions=directions, deviations=deviations)

    return await submit(job)


@api.post("/runs/{run}/decode")
async def decode(
    explorer: ExplorerDependency, submit: SubmitDependency, wanted: schemas.DecodeRequest
) -> Samples:
    """Codes to samples."""

    def job() -> Samples:
        given = None
        if wanted.given is not None:
            given = unlabelled(picked(explorer, wanted.given, "given"))
        decoded = explorer.decode(rows(wanted.codes), given, wanted.label)
        return Samples.of(decoded, explorer.kind)

    return await submit(job)


@api.post("/runs/{run}/sample")
async def sample(
    explorer: ExplorerDependency, submit: SubmitDependency, wanted: schemas.DrawRequest
) -> Samples:
    """Draws of the model; at temperature 1 those of `monge sample`."""

    def job() -> Samples:
        drawn = Samples.of(explorer.sample(**wanted.model_dump()), explorer.kind)
        labels = explorer.labels(wanted.count, wanted.seed, wanted.label)
        return drawn.model_copy(update={"labels": None if labels is None else labels.tolist()})

    return await submit(job)


@api.post("/runs/{run}/codes")
async def draw_codes(
    explorer: ExplorerDependency, submit: SubmitDependency, wanted: schemas.DrawRequest
) -> schemas.Codes:
    """Draws of codes."""
    asked = wanted.model_dump(exclude={"label", "guidance"})
    return await submit(lambda: schemas.Codes(codes=explorer.draw(**asked).tolist()))


@api.post("/runs/{run}/image", openapi_extra=FILE)
async def read_image(
    explorer: ExplorerDependency, submit: SubmitDependency, request: HttpRequest
) -> Samples:
    """An image file in the layout of the run's images: cropped, resized, grey or in colour."""
    content, opened = await request.body(), request.app.state.site
    kind = request.headers["content-type"].split(";")[0].strip().lower()

    def job() -> Samples:
        return Samples.of(explorer.read_image(content, kind, opened.decoder), IMAGE)

    return await submit(job, opened.reader)


@api.post("/runs/{run}/encode")
async def encode(
    explorer: ExplorerDependency, submit: SubmitDependency, wanted: schemas.EncodeRequest
) -> schemas.Codes:
    """The mean code of a sample."""

    def job() -> schemas.Codes:
        code = explorer.encode(picked(explorer, wanted.sample, "sample"))
        return schemas.Codes(codes=code.tolist())

    return await submit(job)


@api.post("/runs/{run}/interpolate")
async def interpolate(
    explorer: ExplorerDependency, submit: SubmitDependency, wanted: schemas.InterpolateRequest
) -> Samples:
    """Frames between two samples."""

    def job() -> Samples:
        a, b = picked(explorer, wanted.a, "a"), picked(explorer, wanted.b, "b")
        frames = explorer.interpolate(a, b, wanted.frames, wanted.path)
        return Samples.of(frames, explorer.kind)

    return await submit(job)


@api.post("/runs/{run}/reconstruct")
async def reconstruct(
    explorer: ExplorerDependency, submit: SubmitDependency, wanted: schemas.EncodeRequest
) -> schemas.Reconstructed:
    """A sample and its reconstruction, with its code and the nearest training samples."""
    return await submit(lambda: reconstruction_of(explorer, wanted.sample))


@api.get("/runs/{run}/mask")
async def get_mask(explorer: ExplorerDependency, submit: SubmitDependency) -> Samples:
    """The part that a conditional run was trained to be shown, white."""
    return await submit(lambda: Samples.of(explorer.mask(), IMAGE))


@api.post("/runs/{run}/complete")
async def complete(
    explorer: ExplorerDependency, submit: SubmitDependency, wanted: schemas.CompleteRequest
) -> Samples:
    """Completions of a sample of which a part is known."""

    def job() -> Samples:
        x, known = unlabelled(picked(explorer, wanted.sample, "sample")), explorer.mask()
        if wanted.known is not None:
            shape = (1, *explorer.source.shape[1:])
            known = (read_values(wanted.known, IMAGE, shape, "known") > 0).float()
        completed = explorer.complete(x, known, wanted.count, wanted.seed)
        return Samples.of(completed, explorer.kind)

    return await submit(job)


def rows(codes: list[list[float]]) -> Tensor:
    """Codes (n, dim) of lists of one length."""
    if len({len(code) for code in codes}) != 1:
        raise ValueError("`codes` must be rows of one length")
    return Tensor(codes)


def map_of(explorer: Explorer, name: PlaneName) -> schemas.PlaneMap:
    """The map of a run in a plane, as it is sent."""
    shown = explorer.map(name)
    return schemas.PlaneMap(
        origin=shown.plane.origin.tolist(),
        axes=shown.plane.axes.tolist(),
        distances=list(shown.plane.distances),
        extent=list(shown.extent),
        index=shown.index.tolist(),
        codes=shown.codes.tolist(),
        labels=None if shown.labels is None else shown.labels.tolist(),
        density=Samples.of(shown.density[None, None], IMAGE),
    )


def reconstruction_of(explorer: Explorer, pick: Pick) -> schemas.Reconstructed:
    """A sample through the model, as it is sent."""
    x, kind = picked(explorer, pick, "sample"), explorer.kind
    made = explorer.reconstruct(x)
    return schemas.Reconstructed(
        sample=Samples.of(unlabelled(x), kind),
        reconstruction=Samples.of(made.reconstruction, kind),
        error=None if made.error is None else Samples.of(made.error, IMAGE),
        cost=made.cost,
        code=made.code.tolist(),
        **made.typicality._asdict(),
        near=Samples.of(as_floats(explorer.source.train[made.near]), kind),
        near_index=made.near.tolist(),
        near_distance=made.distances.tolist(),
    )
