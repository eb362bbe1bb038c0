# Prints a line of JSON: `state` is Sysprep's image state, `sysprep` whether it runs now.
$key = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Setup\State'
$state = (Get-ItemProperty -Path $key -ErrorAction SilentlyContinue).ImageState
$running = @(Get-Process -Name sysprep -ErrorAction SilentlyContinue).Count -gt 0
[Console]::Out.WriteLine((@{ state = "$state"; sysprep = $running } | ConvertTo-Json -Compress))
