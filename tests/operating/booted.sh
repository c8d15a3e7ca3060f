# Run as root by the service manager of a container, which throws away whatever is done here: does what
# docs/operations.md says, and writes what comes of it, part by part. See test_under_systemd.py.
cd /trial
exec >told 2>&1

part() { printf '== %s\n' "$1"; }
show() { systemctl show --property "$1" --value downloader; }
until_it() { # wait until a property of the service matches; half a minute at most
    for _ in $(seq 300); do
        [[ $(show "$1") == $2 ]] && return
        sleep 0.1
    done
    echo "$1 is '$(show "$1")', not '$2'"
}
program() { # as the page says
    runuser -u downloader -- /opt/downloader/bin/downloader --config /etc/downloader/config.toml "$@"
}

# Where the program is, others than its owner may not be able to go.
while read -r folder; do chmod o+x "$folder"; done <folders
ln -s "$PREFIX" /opt/downloader
systemctl daemon-reload
systemctl start dbus simulator

part installed
bash -e installation <key && show ActiveState

part saved
seq 20 | program submit --file -
until_it StatusText '20 saved*'
show StatusText
stat --format '%U %A %n' /var/lib/downloader /var/lib/downloader/audio/7.wav

part secret
pid=$(show MainPID)
grep --count --text --fixed-strings "$(cat key)" "/proc/$pid/environ" "/proc/$pid/cmdline"
runuser -u downloader -- cat /etc/downloader/camb-api-key

part reloaded
systemctl reload downloader && until_it ActiveState active # it says for a moment that it reloads
show ActiveState

part kept
echo 'concurrency = "many"' >>/etc/downloader/config.toml
systemctl reload downloader || echo "reload: $?"
show ActiveState
kill -HUP "$(show MainPID)" # past the check
until_it StatusText 'the configuration was refused: *; * saved*'
show StatusText
sed -i '$d' /etc/downloader/config.toml
systemctl reload downloader && until_it StatusText '20 saved*'

part doctor
bash -e asking && echo "exit $?"

part hung
pid=$(show MainPID)
kill -STOP "$pid"
until_it NRestarts 1
until_it ActiveState active
[ "$(show MainPID)" != "$pid" ] && echo restarted

part stopped
systemctl stop downloader
show Result

part refused
: >/etc/downloader/camb-api-key
systemctl start downloader
show Result
show NRestarts
cp key /etc/downloader/camb-api-key
systemctl reset-failed downloader

part missing
mv /etc/downloader/camb-api-key .
systemctl start downloader
systemctl show --property ExecMainStatus --value downloader
mv camb-api-key /etc/downloader/
systemctl stop downloader
systemctl reset-failed downloader

part once
seq 21 23 | program submit --file -
systemctl start downloader-once && echo started
program status | grep done

part failed
echo 99 | program submit --file -
systemctl start downloader-once
systemctl --failed --plain --no-legend | cut -d' ' -f1

part errors
journalctl --unit downloader --unit downloader-once --output cat -p err _COMM=downloader

part journal
journalctl --unit downloader --unit downloader-once --output cat
