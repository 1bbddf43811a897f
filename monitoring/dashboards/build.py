"""Dashboards as Grafana reads them, by its own SDK."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard as models

from monitoring.dashboards.draw import draw, reference
from monitoring.dashboards.panels import TAG, Board, Choice, Panel, Place, place
from monitoring.dashboards.queries import OF_DEPLOY
from monitoring.prometheus import INTERVAL


class Marker(models.AnnotationQuery, Builder[models.AnnotationQuery]):
    """An annotation whose moments come from Prometheus: the SDK does not know the fields of that datasource."""

    def __init__(self, name: str, color: str, expr: str, title: str, text: str, *, value_is_time: bool) -> None:
        super().__init__(name, reference("prometheus"), icon_color=color, expr=expr)
        self._more = {"titleFormat": title, "textFormat": text, "useValueForTime": value_is_time, "step": INTERVAL}

    def to_json(self) -> dict[str, object]:
        """Return it as Grafana reads it: `target` since 11, `expr` before."""
        target = {"refId": "Anno", "expr": self.expr, "interval": INTERVAL, "datasource": self.datasource}
        return super().to_json() | self._more | {"target": target}

    def build(self) -> models.AnnotationQuery:
        """Return itself: it stands where the SDK takes a builder."""
        return self


MARKERS = (
    Marker(
        "Deploys", "blue", f"tidegate_deploy_finished_timestamp_seconds * 1000 {OF_DEPLOY}",
        "{{kind}} of {{app}} on {{host}}", "version {{version}}, release {{release}}", value_is_time=True,
    ),
    Marker(
        "Backups", "green", "tidegate_backup_last_success_timestamp_seconds * 1000",
        "Backup of {{app}} on {{host}}", "complete and proven", value_is_time=True,
    ),
    Marker(
        "Alerts", "red", 'ALERTS{alertstate="firing",severity!="none"}',
        "{{alertname}}", "{{severity}} {{host}} {{app}} {{container}} {{instance}}", value_is_time=False,
    ),
)  # fmt: skip


def document(board: Board, runbooks: str | None, boards: dict[str, str]) -> models.Dashboard:
    """Return a dashboard; `boards` are the titles of all there are, `runbooks` is where the pages about alerts are."""
    built = builders.Dashboard(board.title).uid(board.uid).description(board.description).tags([TAG])
    built.readonly().time(board.since, "now").refresh(board.refresh).timezone("browser")
    built.tooltip(models.DashboardCursorSync.CROSSHAIR).link(_others())
    built.variables([_variable(choice) for choice in board.choices]).annotations([*MARKERS])
    result = built.build()
    result.panels = [_placed(one, number, runbooks, boards) for number, one in enumerate(place(board.rows), 1)]
    return result


def _others() -> builders.DashboardLink:
    link = builders.DashboardLink("Tidegate").type(models.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _placed(one: Place, number: int, runbooks: str | None, boards: dict[str, str]) -> models.Panel | models.RowPanel:
    where = models.GridPos(h=one.height, w=one.width, x=one.x, y=one.y)
    if isinstance(one.what, str):
        return models.RowPanel(title=one.what, id_val=number, grid_pos=where)
    panel = draw(one.what)
    panel.id_val, panel.grid_pos = number, where
    panel.links = [link.build() for link in _links(one.what, runbooks, boards)]
    return panel


def _links(panel: Panel, runbooks: str | None, boards: dict[str, str]) -> list[builders.DashboardLink]:
    pages = [f"{runbooks.rstrip('/')}/{name}.md" for name in panel.alerts] if runbooks else []
    links = [
        builders.DashboardLink(f"Runbook: {name}").type(models.DashboardLinkType.LINK).url(url).target_blank(True)
        for name, url in zip(panel.alerts, pages, strict=False)
    ]
    if panel.board in boards:
        url = f"/d/{TAG}-{panel.board}"
        links.append(builders.DashboardLink(boards[panel.board]).type(models.DashboardLinkType.LINK).url(url).keep_time(True))
    return links


def _variable(choice: Choice) -> builders.QueryVariable | builders.TextBoxVariable:
    if not choice.label:
        return builders.TextBoxVariable(choice.name).default_value("")
    variable = builders.QueryVariable(choice.name).datasource(reference(choice.source)).query(_values(choice))
    variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return variable.multi(True).include_all(True).all_value(".*").current(everything)


def _values(choice: Choice) -> dict[str, object]:
    if choice.source == "loki":
        return {"refId": "values", "type": 1, "label": choice.label, "stream": choice.series}
    return {"refId": "values", "qryType": 1, "query": f"label_values({choice.series}, {choice.label})"}
