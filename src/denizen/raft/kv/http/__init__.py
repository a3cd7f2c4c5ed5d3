"""The HTTP face of the key-value service: a lean HTTP/1.1 server, our JSON routes, and etcd's JSON gateway."""
