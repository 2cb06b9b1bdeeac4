"""The sandbox provisioner: REST calls in, Pods and Services on Kubernetes out, through kubectl.

Packages import only from those below them, see pyproject.toml::

    cli → app → api → ops → service → cluster → {status, spec, kubectl} → settings → models → … → errors
"""

# The program's version; all else that names it reads it here.
__version__ = "0.2.0"
