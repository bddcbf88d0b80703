set -u
cd "$(mktemp -d)"; mkdir -m 700 g; export GNUPGHOME=$PWD/g   # gpg-agent wants a short path
for n in a b c; do gpg --batch -q --passphrase '' --quick-gen-key "$n <$n@example.net>" default default never 2>/dev/null; gpg --armor --export $n@example.net > $n.pub; gpg --batch --armor --export-secret-keys $n@example.net > $n.sec; done
gpg --batch -q --passphrase 'open sesame' --pinentry-mode loopback --quick-gen-key "p <p@example.net>" rsa3072 sign,cert never; gpg --batch -q --passphrase 'open sesame' --pinentry-mode loopback --quick-add-key $(gpg --list-keys --with-colons p@example.net | awk -F: '/^fpr/{print $10;exit}') rsa3072 encr never; gpg --armor --export p@example.net > p.pub; gpg --batch --passphrase 'open sesame' --pinentry-mode loopback --armor --export-secret-keys p@example.net > p.sec
B=$1   # a program with seal TO SIGN and open KEY FROM
seq 1 50 > text
echo "1 ours -> gpg"; $B seal b.pub a.sec < text > m.asc && gpg --batch -d m.asc 2>g.err | cmp - text && grep -i "good signature" g.err
echo "2 ours -> ours"; $B open b.sec a.pub < m.asc | cmp - text && echo same
echo "3 gpg -> ours"; gpg --batch -q --trust-model always --armor -r b@example.net -u a@example.net -s -e < text > n.asc && $B open b.sec a.pub < n.asc | cmp - text && echo same
echo "4 wrong signer"; $B open b.sec c.pub < m.asc
echo "5 wrong recipient"; $B open c.sec a.pub < m.asc
echo "6 tampered"; python3 - <<'P'
import base64,re
t=open('m.asc').read().split('\n\n',1); body,rest=t[1].split('\n=',1) if '\n=' in t[1] else t[1].split('\n-----',1)
raw=bytearray(base64.b64decode(body.replace('\n','')))
for pos in (5,60,len(raw)//2,len(raw)-3):
    r=bytearray(raw); r[pos]^=1
    b=base64.b64encode(bytes(r)).decode(); b='\n'.join(b[i:i+64] for i in range(0,len(b),64))
    open('t%d.asc'%pos,'w').write('-----BEGIN PGP MESSAGE-----\n\n'+b+'\n-----END PGP MESSAGE-----\n')
P
for f in t[0-9]*.asc; do echo " $f"; $B open b.sec a.pub < $f | head -c 40; done
echo "7 unsigned"; gpg --batch -q --trust-model always --armor -r b@example.net -e < text | $B open b.sec a.pub
echo "8 clear signed only"; gpg --batch -q --armor -u a@example.net -s < text | $B open b.sec a.pub
echo "9 bomb"; head -c 50000000 /dev/zero | gpg --batch -q --trust-model always --armor -r b@example.net -u a@example.net -s -e | /usr/bin/time -f %MKB $B open b.sec a.pub | wc -c
echo "10 rsa w/ passphrase both ways"; PASS='open sesame' $B seal p.pub p.sec < text > q.asc && PASS='open sesame' $B open p.sec p.pub < q.asc | cmp - text && echo same; PASS=wrong $B seal b.pub p.sec < text | head -c 20;  PASS=wrong $B open p.sec p.pub < q.asc | head -c 20
echo "11 revoked signer"; ls g/openpgp-revocs.d | head -1; F=$(gpg --list-keys --with-colons a@example.net | awk -F: '/^fpr/{print $10;exit}'); sed 's/^:---/---/' g/openpgp-revocs.d/$F.rev | gpg --batch -q --import 2>/dev/null; gpg --armor --export a@example.net > ar.pub; $B open b.sec ar.pub < m.asc
echo "12 junk"; echo junk | $B open b.sec a.pub; head -c 300 m.asc | $B open b.sec a.pub
gpgconf --kill all
