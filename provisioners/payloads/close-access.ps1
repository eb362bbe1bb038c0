# The last thing that runs in a build VM, as a task of SYSTEM and with nobody connected any more: takes away what
# open-access.ps1 and the answer file gave, and powers off. A machine that does not power off has not lost everything.
$ErrorActionPreference = 'Stop'
$policies = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
$before = 'HKLM:\SOFTWARE\aib'

Start-Sleep -Seconds 3
$old = Get-ItemProperty -Path $before
& winrm.cmd delete 'winrm/config/Listener?Address=*+Transport=HTTPS' | Out-Null
if ($LASTEXITCODE) { throw "the listener could not be removed: $LASTEXITCODE" }
Set-Item -Path 'WSMan:\localhost\Service\Auth\Basic' -Value ($old.Basic -eq 'true') -Force
Stop-Service -Name WinRM -Force
Set-Service -Name WinRM -StartupType $old.StartType
Remove-NetFirewallRule -Name aib-winrm
Remove-Item -Path 'Cert:\LocalMachine\My\@THUMBPRINT@' -DeleteKey
if ($old.TokenFilter -eq '') {
    Remove-ItemProperty -Path $policies -Name LocalAccountTokenFilterPolicy
} else {
    Set-ItemProperty -Path $policies -Name LocalAccountTokenFilterPolicy -Value ([int]$old.TokenFilter)
}
& net.exe user @USER@ /delete | Out-Null
if ($LASTEXITCODE) { throw "the account could not be removed: $LASTEXITCODE" }
# Windows gives a profile free some time after the last logoff; a folder that stays is found by the proof.
foreach ($try in 1..10) {
    Remove-Item -Path "$env:SystemDrive\Users\@USER@" -Recurse -Force -ErrorAction SilentlyContinue
    if (-not (Test-Path -Path "$env:SystemDrive\Users\@USER@")) { break }
    Start-Sleep -Seconds 3
}
Remove-Item -Path $before -Recurse -Force
& schtasks.exe /Delete /TN aib-close-access /F | Out-Null
Remove-Item -Path "$env:SystemRoot\Temp\aib-close-access.ps1" -Force
& shutdown.exe /s /f /t 0
