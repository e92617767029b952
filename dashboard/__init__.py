"""Streamlit pages over the store: they render its rows, compute no statistics and change nothing.

`serve` starts the server, `app` is the script it runs; every other page is a script beside it.
"""
