#!/bin/sh
# contrib/install.sh [uninstall]: installs ratelimitd from this checkout, or removes it again. It asks nothing, and says
# what it does. Run it again to update, or after the system's Python has changed. An existing configuration is never
# touched; uninstall keeps it, the counts and the logs.
#
# From the environment:
#   PREFIX    where the program goes                 /usr/local   ($PREFIX/lib/ratelimitd, $PREFIX/bin, $PREFIX/share/man)
#   SYSCONF   where the configuration goes           /etc
#   DESTDIR   put before every path; then no user is made and no service is touched
#   PYTHON    Python >= 3.11                         python3
#   EXTRAS    what else to install                   metrics,notify,mysql-auth,postgresql,report
set -eu
umask 022 # the program is for all, whatever root keeps to itself; what is not, is made with another mode

prefix=${PREFIX:-/usr/local}
sysconf=${SYSCONF:-/etc}
dest=${DESTDIR:-}
python=${PYTHON:-python3}
extras=${EXTRAS:-metrics,notify,mysql-auth,postgresql,report}
user=ratelimitd
here=$(cd "$(dirname "$0")/.." && pwd)
lib=$prefix/lib/ratelimitd

say() { printf '%s\n' "install.sh: $*"; }
die() { printf '%s\n' "install.sh: $*" >&2; exit 1; }

on_this_system() { [ -z "$dest" ]; }
systemd_runs() { on_this_system && [ -d /run/systemd/system ]; }

has_package() { on_this_system && [ -e /usr/lib/ratelimitd/ratelimitd ]; }

has_init_script() { on_this_system && [ -x "$sysconf/init.d/ratelimitd" ] && command -v start-stop-daemon >/dev/null; }

# put MODE SOURCE TARGET: a file, with the paths of this installation in it.
put() {
    mkdir -p "$(dirname "$dest$3")"
    sed -e "s|/usr/local/bin|$prefix/bin|g" -e "s|/etc/ratelimitd\.toml|$sysconf/ratelimitd.toml|g" \
        "$here/$2" >"$dest$3.new"
    chmod "$1" "$dest$3.new"
    mv "$dest$3.new" "$dest$3"
}

make_user() {
    getent passwd "$user" >/dev/null && return
    if command -v adduser >/dev/null && [ -e /etc/debian_version ]; then
        adduser --system --group --quiet --home /var/lib/ratelimitd --no-create-home --gecos 'ratelimitd' "$user"
    else
        useradd --system --user-group --home-dir /var/lib/ratelimitd --shell /usr/sbin/nologin "$user"
    fi
    say "made the user $user"
}

# After an upgrade of the system the environment names a Python that is gone, or one of another version, which does not
# see what is installed there.
works() { "$dest$lib/bin/python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# Which key plugins of others were in the environment that is made again: it does not have them then.
plugins() {
    grep -ls '^\[ratelimitd\.keys\]' "$dest$lib"/lib/python3*/site-packages/*.dist-info/entry_points.txt |
        sed -e 's|/entry_points\.txt$||' -e 's|.*/||' -e 's|\.dist-info$||' | grep -v '^ratelimitd-[0-9]' || true
}

make_environment() {
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "$python is not Python >= 3.11 (set PYTHON)"
    if works; then
        say "updating the program in $lib"
        return
    fi
    lost=''
    if [ -e "$dest$lib" ]; then
        lost=$(plugins)
        say "making $lib again: its Python is gone, or is another version"
    else
        say "putting the program into $lib"
    fi
    mkdir -p "$dest$lib"
    "$python" -m venv --clear "$dest$lib" || die "$python lacks venv (Debian: apt install python3-venv)"
    if [ -n "$lost" ]; then say "key plugins to be installed again with $lib/bin/pip: "$lost; fi
}

install_program() {
    make_environment
    mkdir -p "$dest$prefix/bin"
    "$dest$lib/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$here[$extras]" ||
        die "pip could not install $here[$extras]"
    for name in ratelimitd ratelimitctl; do
        if [ -n "$dest" ]; then # the scripts must name the path that they will run from
            sed -i "1s|$dest$lib|$lib|" "$dest$lib/bin/$name"
        fi
        ln -sf "$lib/bin/$name" "$dest$prefix/bin/$name"
    done
    for section in 5 8; do mkdir -p "$dest$prefix/share/man/man$section"; done
    "$dest$lib/bin/python" "$here/contrib/man/make.py" "$dest$prefix/share/man"
    put 644 contrib/completion/ratelimitctl.bash "$prefix/share/bash-completion/completions/ratelimitctl"
    say "commands: $prefix/bin/ratelimitd and ratelimitctl, with manual pages and bash completion in $prefix/share"
}

install_configuration() {
    put 644 conf/ratelimitd.toml "$prefix/share/ratelimitd/ratelimitd.toml"
    if [ -e "$dest$sysconf/ratelimitd.toml" ]; then
        say "kept $sysconf/ratelimitd.toml; all settings are in $prefix/share/ratelimitd/ratelimitd.toml"
        if ! grep -q '^[[:space:]]*user[[:space:]]*=' "$dest$sysconf/ratelimitd.toml"; then
            say "it sets no user: under an init script the daemon runs as root until it has user = \"$user\" at its top"
        fi
    else
        put 640 conf/ratelimitd.toml "$sysconf/ratelimitd.toml"
        sed -i "s/^#user = \"\"\$/user = \"$user\"/" "$dest$sysconf/ratelimitd.toml"
        if on_this_system; then chgrp "$user" "$sysconf/ratelimitd.toml"; fi
        say "made $sysconf/ratelimitd.toml, with user = \"$user\""
    fi
    put 644 contrib/logrotate.d/ratelimitd "$sysconf/logrotate.d/ratelimitd"
}

install_service() {
    put 755 contrib/init.d/ratelimitd "$sysconf/init.d/ratelimitd"
    put 644 contrib/systemd/ratelimitd.service "$sysconf/systemd/system/ratelimitd.service"
    put 644 contrib/systemd/ratelimitd.socket "$sysconf/systemd/system/ratelimitd.socket"
    if systemd_runs; then
        systemctl daemon-reload
        systemctl enable --quiet ratelimitd.service
        say "service: ratelimitd.service of systemd, which starts with the system"
        if systemctl --quiet is-active ratelimitd.service; then
            systemctl restart ratelimitd.service || die "the daemon that ran is not running now: journalctl -u ratelimitd"
            say "restarted the daemon that was running"
        fi
        return
    fi
    if on_this_system && command -v update-rc.d >/dev/null; then update-rc.d ratelimitd defaults; fi
    say "service: $sysconf/init.d/ratelimitd, and units for systemd"
    if has_init_script && "$sysconf/init.d/ratelimitd" status >/dev/null 2>&1; then
        "$sysconf/init.d/ratelimitd" restart || die "the daemon was not restarted"
        say "restarted the daemon that was running"
    fi
}

make_folders() {
    for folder in /var/lib/ratelimitd /var/log/ratelimitd; do
        mkdir -p "$dest$folder"
        chmod 750 "$dest$folder"
        if on_this_system; then chown "$user:$user" "$folder"; fi
    done
    if on_this_system && getent group adm >/dev/null; then chgrp adm /var/log/ratelimitd; fi
}

uninstall() {
    if has_package; then die "the Debian package is installed, whose files have the same names: apt-get remove ratelimitd"; fi
    if systemd_runs; then
        systemctl disable --quiet --now ratelimitd.socket ratelimitd.service 2>/dev/null || true
    elif has_init_script; then
        "$sysconf/init.d/ratelimitd" stop || true
    fi
    rm -rf "$dest${lib:?}" "$dest${prefix:?}/share/ratelimitd"
    rm -f "$dest$prefix/bin/ratelimitd" "$dest$prefix/bin/ratelimitctl" \
        "$dest$prefix/share/man/man8/ratelimitd.8" "$dest$prefix/share/man/man8/ratelimitctl.8" \
        "$dest$prefix/share/man/man5/ratelimitd.toml.5" \
        "$dest$prefix/share/bash-completion/completions/ratelimitctl" \
        "$dest$sysconf/init.d/ratelimitd" "$dest$sysconf/logrotate.d/ratelimitd" \
        "$dest$sysconf/systemd/system/ratelimitd.service" "$dest$sysconf/systemd/system/ratelimitd.socket"
    if systemd_runs; then systemctl daemon-reload; fi
    if on_this_system && command -v update-rc.d >/dev/null; then update-rc.d ratelimitd remove; fi
    say "removed; kept $sysconf/ratelimitd.toml, /var/lib/ratelimitd, /var/log/ratelimitd and the user $user"
}

# They go into scripts, units and #! lines, none of which has room for more.
for path in "$prefix" "$sysconf" "${dest:-/}"; do
    case $path in
    *[!A-Za-z0-9/._+-]*) die "PREFIX, SYSCONF, DESTDIR: \"$path\": only letters, digits and / . _ + - work" ;;
    /*) ;;
    *) die "PREFIX, SYSCONF, DESTDIR: \"$path\" must begin with /" ;;
    esac
done
# The unit of an earlier run says where it has installed.
before=$(sed -n 's|^ExecStart=\(/[^ ]*\)/bin/ratelimitd .*|\1|p' "$dest$sysconf/systemd/system/ratelimitd.service" 2>/dev/null || true)
if [ -n "$before" ] && [ "$before" != "$prefix" ] && [ -e "$dest$before/lib/ratelimitd/bin/ratelimitd" ]; then
    die "it is installed with PREFIX=$before: run this with that PREFIX"
fi

if on_this_system && [ "$(id -u)" != 0 ]; then die "must be root (or set DESTDIR)"; fi
case ${1:-install} in
install)
    if has_package; then
        die "the Debian package is installed: apt-get remove ratelimitd first; configuration, counts and logs stay"
    fi
    if on_this_system; then make_user; fi
    install_program
    make_folders
    install_configuration
    install_service
    say "installed. Look at $sysconf/ratelimitd.toml, then: service ratelimitd start; man ratelimitd says more"
    ;;
uninstall) uninstall ;;
*) die "usage: $0 [uninstall]" ;;
esac
