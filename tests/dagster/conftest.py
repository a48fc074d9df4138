"""Fixtures shared with the other folders that run whole pipelines."""

from pipeline.finished import finance, finished_finance, finished_parcels, parcels

__all__ = ["finance", "finished_finance", "finished_parcels", "parcels"]
