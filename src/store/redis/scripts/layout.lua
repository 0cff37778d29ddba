redis.call('HSETNX', KEYS[7], 'layout', ARGV[1])
return redis.call('HGET', KEYS[7], 'layout')
