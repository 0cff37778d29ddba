-- In a script, so that a cluster sends it to the server that holds the keys.
return redis.call('TIME')
