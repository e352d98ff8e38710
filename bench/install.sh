#!/bin/bash
# Install the peers, each into its own chroot below $BENCH_WORK (default: bench in the temporary directory).
# Needs: root, Debian 12, a reachable Debian mirror.  Installs nothing on the host itself:
# debootstrap is taken from its .deb when the host lacks it.
#   ./install.sh                        all default peers
#   ./install.sh postfix dovecot        only those
# Re-running is cheap: a root that carries .installed is left alone.
set -eu
W=${BENCH_WORK:-$(dirname "$(mktemp -u)")/bench}
R=$W/roots
# the mirrors that this host's own apt uses
sites() { apt-get indextargets --format '$(SITE)' "Created-By: Packages" | sort -u; }
MIRROR=${MIRROR:-$(sites | grep -m1 'debian/*$')}
SEC=${SECMIRROR:-$(sites | grep -m1 'debian-security/*$' || true)}
mkdir -p "$W/debs" "$W/tools" "$R"

DEBOOTSTRAP=$(command -v debootstrap || true)
if [ -z "$DEBOOTSTRAP" ]; then
  (cd "$W/debs" && apt-get download debootstrap >/dev/null 2>&1)
  dpkg -x "$W"/debs/debootstrap_*.deb "$W/tools"
  export DEBOOTSTRAP_DIR=$W/tools/usr/share/debootstrap
  DEBOOTSTRAP=$W/tools/usr/sbin/debootstrap
fi

if [ ! -e "$R/base/.installed" ]; then
  rm -rf "$R/base"
  "$DEBOOTSTRAP" --variant=minbase bookworm "$R/base" "$MIRROR" >"$W/debootstrap.log" 2>&1
  cat >"$R/base/etc/apt/sources.list" <<S
deb $MIRROR bookworm main
deb $MIRROR bookworm-updates main
S
  [ -z "$SEC" ] || echo "deb $SEC bookworm-security main" >>"$R/base/etc/apt/sources.list"
  printf '#!/bin/sh\nexit 101\n' >"$R/base/usr/sbin/policy-rc.d"     # never start a daemon on install
  chmod 755 "$R/base/usr/sbin/policy-rc.d"
  cp /etc/resolv.conf "$R/base/etc/resolv.conf"
  printf '127.0.0.1 localhost bench.test mx.bench.test\n' >"$R/base/etc/hosts"
  echo bench.test >"$R/base/etc/hostname"
  echo bench.test >"$R/base/etc/mailname"
  printf 'hosts: files\npasswd: files\ngroup: files\nshadow: files\nservices: files\nprotocols: files\n' >"$R/base/etc/nsswitch.conf.bench"
  # The same users everywhere: u0..u99, gid bench, home /home/uN.
  chroot "$R/base" groupadd -g 20000 bench
  for i in $(seq 0 99); do
    echo "u$i:x:$((20000+i)):20000::/home/u$i:/bin/false" >>"$R/base/etc/passwd"
    echo "u$i:*:19000:0:99999:7:::" >>"$R/base/etc/shadow"
    mkdir -p "$R/base/home/u$i"; chown $((20000+i)):20000 "$R/base/home/u$i"
  done
  chroot "$R/base" apt-get update -q >>"$W/debootstrap.log" 2>&1
  touch "$R/base/.installed"
fi

pkgs() { case $1 in
  postfix)   echo postfix ;;
  opensmtpd) echo opensmtpd ;;
  exim)      echo exim4-daemon-light ;;
  dovecot)   echo dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd ;;
  *) return 1 ;; esac; }

for p in ${@:-postfix opensmtpd exim dovecot yubin}; do
  d=$R/$p
  [ -e "$d/.installed" ] && { echo "$p: already there"; continue; }
  rm -rf "$d"; cp -a "$R/base" "$d"; rm "$d/.installed"
  [ "$p" = yubin ] && { touch "$d/.installed"; echo "yubin: root ready"; continue; }
  if DEBIAN_FRONTEND=noninteractive chroot "$d" apt-get install -y -q --no-install-recommends $(pkgs "$p") >"$W/install-$p.log" 2>&1
  then cp "$d/etc/nsswitch.conf.bench" "$d/etc/nsswitch.conf"; touch "$d/.installed"; echo "$p: installed"
  else echo "$p: FAILED, see $W/install-$p.log"; fi
done
