# Opens WinRM over HTTPS for the build, at the first logon. What was set before is kept in the registry, so that
# close-access.ps1 can put it back. The listener comes last: whoever can connect finds everything else in place.
$ErrorActionPreference = 'Stop'
$folder = Split-Path -Parent $MyInvocation.MyCommand.Path
$policies = 'HKLM:\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System'
$before = 'HKLM:\SOFTWARE\aib'

New-Item -Path $before -Force | Out-Null
New-ItemProperty -Path $before -Name StartType -Value "$((Get-Service -Name WinRM).StartType)" | Out-Null
Set-Service -Name WinRM -StartupType Automatic
Start-Service -Name WinRM
$basic = (Get-Item -Path 'WSMan:\localhost\Service\Auth\Basic').Value
New-ItemProperty -Path $before -Name Basic -Value "$basic" | Out-Null
Set-Item -Path 'WSMan:\localhost\Service\Auth\Basic' -Value $true -Force

$filter = (Get-ItemProperty -Path $policies -ErrorAction SilentlyContinue).LocalAccountTokenFilterPolicy
New-ItemProperty -Path $before -Name TokenFilter -Value "$filter" | Out-Null
New-ItemProperty -Path $policies -Name LocalAccountTokenFilterPolicy -PropertyType DWord -Value 1 -Force | Out-Null

New-NetFirewallRule -Name aib-winrm -DisplayName 'aib: WinRM over HTTPS' -Direction Inbound -Protocol TCP `
    -LocalPort 5986 -Profile Any -Action Allow | Out-Null

$password = ConvertTo-SecureString -String @PASSWORD@ -AsPlainText -Force
$certificate = Import-PfxCertificate -FilePath "$folder\winrm.pfx" -CertStoreLocation 'Cert:\LocalMachine\My' `
    -Password $password
New-Item -Path 'WSMan:\localhost\Listener' -Transport HTTPS -Address * `
    -CertificateThumbPrint $certificate.Thumbprint -Force | Out-Null
