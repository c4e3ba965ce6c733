-- ARGV: name, to, seconds, why   -> look. A person may set any state at any time.
go(ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[2] == 'open' and '1' or '0')
return look(1)
