-- One file at a pace: the first byte after `first_byte_seconds`, then each piece at the end of the
-- time that it takes at `bytes_a_second`. The schedule is absolute, so that a timer that fires late
-- delays one piece, not all that follow; nothing is ever sent before its time.
local first_byte_seconds = tonumber(ngx.var.first_byte_seconds)
local bytes_a_second = tonumber(ngx.var.bytes_a_second)
local PIECE_BYTES = 65536

local function now()
  ngx.update_time()
  return ngx.now()
end

local function sleep_until(moment)
  -- Timers count another clock's milliseconds, and may fire one early by this one.
  local left = moment - now()
  while left > 0 do
    ngx.sleep(math.max(left, 0.001))
    left = moment - now()
  end
end

-- The clock that nginx tells has whole milliseconds, and so may be one behind.
local started = now() + 0.001
local file = io.open(ngx.var.paced_file, "rb")
if not file then
  return ngx.exit(404)
end
ngx.header["Content-Length"] = file:seek("end")
ngx.header["Content-Type"] = "audio/wav"
file:seek("set", 0)
sleep_until(started + first_byte_seconds)
ngx.send_headers()
ngx.flush(true)
local sent = 0
while true do
  local piece = file:read(PIECE_BYTES)
  if not piece then
    break
  end
  sent = sent + #piece
  sleep_until(started + first_byte_seconds + sent / bytes_a_second)
  if not ngx.print(piece) then
    break
  end
  ngx.flush(true)
end
file:close()
