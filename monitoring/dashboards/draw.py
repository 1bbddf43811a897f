"""Panels as Grafana reads them, by its own SDK: one function for each kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from grafana_foundation_sdk.builders import bargauge, common, logs, loki, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as values
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboards.panels import Area, Bars, Graph, Lines, Panel, Stat, Switches, Table
from monitoring.dashboards.queries import Datasource, Query

if TYPE_CHECKING:
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.variants import Dataquery

_REFERENCES = "ABCDEFGH"
_VERSION = "11.6.0"  # of the panels that the SDK describes; a newer Grafana brings them forward from there
_STATES = {"0": models.ValueMappingResult("down", "red"), "1": models.ValueMappingResult("up", "green")}


def reference(source: Datasource) -> models.DataSourceRef:
    """Return how dashboards name a datasource: its type is its uid."""
    return models.DataSourceRef(source, source)


def draw(panel: Panel) -> models.Panel:
    """Return a panel without its place and its links."""
    built = _KINDS[type(panel)](panel).build()
    built.title, built.description, built.plugin_version = panel.title, panel.description, _VERSION
    built.datasource = reference(panel.queries[0].source)
    built.targets = [_target(panel, query, name) for query, name in zip(panel.queries, _REFERENCES, strict=False)]
    built.field_config = built.field_config or models.FieldConfigSource()
    built.field_config.defaults.unit = panel.unit
    if panel.thresholds:
        built.field_config.defaults.thresholds = models.ThresholdsConfig(
            steps=[models.Threshold(*one) for one in panel.thresholds]
        )
    return built


def _target(panel: Panel, query: Query, name: str) -> Dataquery:
    if query.source == "loki":
        asked = loki.Dataquery().expr(query.expr).ref_id(name).legend_format(query.legend).datasource(reference("loki"))
        return asked.query_type("range").build()
    told = prometheus.Dataquery().expr(query.expr).ref_id(name).legend_format(query.legend).datasource(reference("prometheus"))
    if isinstance(panel, Table):
        told.format(PromQueryFormat.TABLE)
    return (told.instant() if isinstance(panel, Stat | Bars | Table) else told.range()).build()


def _legend() -> common.VizLegendOptions:
    return common.VizLegendOptions().show_legend(True)


def _newest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _graph(panel: Panel) -> timeseries.Panel:
    built = timeseries.Panel().min(0).fill_opacity(8).show_points(values.VisibilityMode.NEVER).legend(_legend())
    built.tooltip(common.VizTooltipOptions().mode(values.TooltipDisplayMode.MULTI).sort(values.SortOrder.DESCENDING))
    if panel.thresholds:
        built.thresholds_style(common.GraphThresholdsStyleConfig().mode(values.GraphThresholdsStyleMode.DASHED))
    return built


def _area(panel: Panel) -> timeseries.Panel:
    return _graph(panel).fill_opacity(40).stacking(common.StackingConfig().mode(values.StackingMode.NORMAL).group("A"))


def _stat(panel: Panel) -> stat.Panel:
    built = stat.Panel().reduce_options(_newest()).graph_mode(values.BigValueGraphMode.NONE)
    if panel.thresholds:
        built.color_mode(values.BigValueColorMode.BACKGROUND)
    return built.no_value("no data")


def _bars(_: Panel) -> bargauge.Panel:
    built = bargauge.Panel().reduce_options(_newest()).orientation(values.VizOrientation.HORIZONTAL).min(0)
    return built.display_mode(values.BarGaugeDisplayMode.BASIC).no_value("no data")


def _switches(_: Panel) -> statetimeline.Panel:
    built = statetimeline.Panel().mappings([models.ValueMap(_STATES)]).show_value(values.VisibilityMode.NEVER)
    return (
        built.color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .row_height(0.8)
        .fill_opacity(80)
        .legend(_legend())
    )


def _lines(_: Panel) -> logs.Panel:
    built = logs.Panel().show_time(True).wrap_log_message(True).enable_log_details(True)
    return built.sort_order(values.LogsSortOrder.DESCENDING)


def _table(panel: Panel) -> table.Panel:
    assert isinstance(panel, Table)
    columns = _columns(panel)
    built = table.Panel().no_value(panel.empty).transformations(_arranged(columns))
    built.filterable(True).cell_options(values.TableAutoCellOptions())
    for query in panel.queries:
        if query.legend and query.unit:
            built.override_by_name(query.legend, [models.DynamicConfigValue("unit", query.unit)])
    return built


def _columns(panel: Table) -> Mapping[str, str]:
    """Return what Grafana calls each column, and what we do; a lone query's column has no letter."""
    names = {name: name for name in panel.labels}
    for query, letter in zip(panel.queries, _REFERENCES, strict=False):
        if query.legend:
            names["Value" if len(panel.queries) == 1 else f"Value #{letter}"] = query.legend
    return names


def _arranged(columns: Mapping[str, str]) -> list[models.DataTransformerConfig]:
    order = {name: index for index, name in enumerate(columns)}
    renamed = {name: new for name, new in columns.items() if name != new}
    return [
        models.DataTransformerConfig("merge", options={}),
        models.DataTransformerConfig("filterFieldsByName", options={"include": {"names": list(columns)}}),
        models.DataTransformerConfig("organize", options={"indexByName": order, "renameByName": renamed}),
    ]


_KINDS: Mapping[type[Panel], Callable[[Panel], Builder[models.Panel]]] = {
    Graph: _graph,
    Area: _area,
    Stat: _stat,
    Bars: _bars,
    Switches: _switches,
    Table: _table,
    Lines: _lines,
}
