"""Figures over time: counters of the data plane -> rates and history -> UI, CLI, Prometheus.

collector --polls--> DataPlane.counters()  --> rates, history --> Watched[StatsSnapshot]
prometheus: Control --> exposition text
"""
