"""Bulk downloader with persistent job tracking for Camb.ai Sound and Music runs."""

__version__ = "0.1.0"
