# Run as root, after the deprovision script and in the same root shell: the build account, and sudo with it, is gone.
# cloud-init keeps what the seed told it, the build VM's private host key too. On Azure there is no such key. The file
# is overwritten where it lies before it is removed, then freed blocks are given back.
grep -rls 'BEGIN OPENSSH PRIVATE KEY' /var/lib/cloud | while IFS= read -r file; do
  size=$(wc -c <"$file")
  head -c "$size" /dev/zero | dd of="$file" conv=notrunc bs=64k 2>/dev/null
  sync
  rm -f "$file"
  echo "aib: removed the build's seed from $file"
done
if command -v fstrim >/dev/null 2>&1; then
  fstrim / 2>/dev/null || :
fi
sync
