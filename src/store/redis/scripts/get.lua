local digest = redis.call('HGET', KEYS[1], ARGV[1])
return digest and string.sub(redis.call('HGET', KEYS[2], digest), 17)
