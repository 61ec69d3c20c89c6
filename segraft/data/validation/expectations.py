"""Expectations that Great Expectations does not have; only imported where its four seconds of import are due."""

from __future__ import annotations

from typing import Any, ClassVar

import pandas as pd
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import ColumnMapExpectation
from great_expectations.expectations.metrics import ColumnMapMetricProvider, column_condition_partial


class _EmptyLists(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.empty_list"

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series[Any], **_: Any) -> pd.Series[bool]:
        return column.map(len) == 0


class ExpectColumnListsToBeEmpty(ColumnMapExpectation):  # type: ignore[misc]
    """Expect each list of the column to hold nothing: for columns that collect what should not be there."""

    map_metric = "column_values.empty_list"


class _NoLowOutlier(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.no_low_outlier"
    condition_value_keys = ("deviations", "share")

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series[Any], deviations: float, share: float, **_: Any) -> pd.Series[bool]:
        middle = column.median()
        spread = 1.4826 * (column - middle).abs().median()
        return ~((column < middle - deviations * spread) & (column < share * middle))


class ExpectColumnValuesNotToBeLowOutliers(ColumnMapExpectation):  # type: ignore[misc]
    """Expect no value under `share` of the column's median and more than `deviations` robust deviations under it.

    A robust deviation is 1.4826 times the median absolute deviation (Rousseeuw and Croux 1993).
    """

    deviations: float
    share: float

    map_metric = "column_values.no_low_outlier"
    success_keys: ClassVar[tuple[str, ...]] = ("deviations", "share", "mostly")
