"""The sandbox provisioner: REST calls in, Pods and Services on Kubernetes out, through kubectl.

Packages import only from those below them, see pyproject.toml::

    cli → app → api → ops → service → cluster → {status, spec, kubectl} → settings → models → … → errors
"""

# The only definition of the program's version.
__version__ = "0.2.0"
