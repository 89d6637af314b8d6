"""The Redis protocol in front of a storage host: what standard clients talk to.

`resp` is the wire format, `binding` the sockets, `router` the node between them and the host's replicas;
`connection` holds the commands that a host answers by itself, `topology` what CLUSTER tells, `directory` who
has which slot. It stores nothing: every reply about data comes from a replica's answer, or is a redirection
or an error.
"""
