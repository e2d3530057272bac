"""The laptop's API server: the Kubernetes REST API for the kinds that Fairlead uses, from one small process.

`python -m fairlead.local.apiserver --directory D` listens on loopback with TLS and a token and writes D/kubeconfig.
Pure cores, one module each: `merge_patch`, `json_patch`, `strategic_merge`, `serverside_apply`, `validation`, `defaults`,
`tables`, `selectors`, `discovery`. `store` keeps objects, `operations` gives the verbs their meaning, `http` speaks to clients.
"""
